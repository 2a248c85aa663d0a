"""How the emulation calls the kernels that feed steps: see cuda_emulation."""

CALLS = {
    "patch": "patch(*(int**)a[0], *(const int**)a[1], *(const int**)a[2], *(int*)a[3])",
    "assemble": "assemble(*(const int**)a[0], *(int*)a[1], *(const long long**)a[2], *(const int**)a[3], *(const int**)a[4], "
    "*(const int**)a[5], *(long long**)a[6], *(int**)a[7], *(int*)a[8])",
    "remember": "remember(*(long long**)a[0], *(const int**)a[1], *(const int**)a[2], *(const long long**)a[3], *(int*)a[4])",
    "copy_blocks": "copy_blocks(*(char**)a[0], *(long long*)a[1], *(long long*)a[2], *(int*)a[3], *(int*)a[4], *(Pairs*)a[5])",
}
NO_SHARED = "struct Nothing { int at; } s;\n"  # the emulation clears what the kernels share
