// Fills a step's inputs from what the device alone knows, and keeps what was chosen for the next step. See protocols.Feeder.

extern "C" __global__ void patch(int* tables, const int* cells, const int* values, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) tables[cells[i]] = values[i];
}

// A block for each sequence.
extern "C" __global__ void assemble(
    const int* tables, int table_width, const long long* latest, const int* slots, const int* fed, const int* ends,
    long long* input_ids, int* block_table, int width) {
    int sequence = blockIdx.x;
    long long slot = slots[sequence];
    for (int column = threadIdx.x; column < width; column += blockDim.x)
        block_table[(long long)sequence * width + column] = tables[slot * table_width + column];
    if (threadIdx.x == 0 && fed[sequence]) input_ids[ends[sequence + 1] - 1] = latest[slot];
}

extern "C" __global__ void remember(
    long long* latest, const int* slots, const int* rows, const long long* tokens, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count && rows[i] >= 0) latest[slots[i]] = tokens[rows[i]];
}
