// Fills a step's inputs from what the device alone knows, keeps what was chosen for the next step, and copies blocks of the KV
// cache. See protocols.Feeder.

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

struct Pairs {
    int sources[128], targets[128];
};

// Each pair of each tensor has as many blocks of threads, which go through its bytes together.
extern "C" __global__ void copy_blocks(
    char* base, long long pitch, long long size, int tensors, int blocks_per_tensor, Pairs pairs) {
    int part = blockIdx.x % blocks_per_tensor, copied = blockIdx.x / blocks_per_tensor;
    char* tensor = base + copied % tensors * pitch;
    const char* from = tensor + pairs.sources[copied / tensors] * size;
    char* to = tensor + pairs.targets[copied / tensors] * size;
    long long first = (long long)part * blockDim.x + threadIdx.x;
    long long step = (long long)blocks_per_tensor * blockDim.x;
    if (size % sizeof(int4) == 0) {
        for (long long i = first; i < size / (long long)sizeof(int4); i += step) ((int4*)to)[i] = ((const int4*)from)[i];
    } else {
        for (long long i = first; i < size; i += step) to[i] = from[i];
    }
}
