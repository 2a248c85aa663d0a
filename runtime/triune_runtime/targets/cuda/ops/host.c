// Registers Triune's ops with ONNX Runtime, and launches their kernels on its stream. Computes nothing, allocates nothing on a
// device. Needs no header of ONNX Runtime: what is used of its C interface is declared here. Its table of functions and its
// description of an op only ever grow at their ends, so that their beginnings are as they were in the versions below.
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define API_VERSION 18  // of ONNX Runtime, in whose form the table and the description are
#define EXPORT __attribute__((visibility("default")))

typedef void Status;  // NULL: all went well
typedef void Value;
typedef void Context;
typedef void Info;
typedef void Domain;
typedef void Options;
typedef void Shape;  // type and shape of a tensor
typedef void (*Function)(void);
typedef struct {
    const Function* (*functions)(uint32_t version);
    const char* (*version)(void);
} ApiBase;

// Places in the table of functions.
enum {
    CREATE_STATUS = 0,
    CREATE_DOMAIN = 26,
    ADD_TO_DOMAIN = 27,
    ADD_DOMAIN = 28,
    TENSOR_NUMBERS = 51,
    ELEMENT_TYPE = 60,
    DIMENSIONS_COUNT = 61,
    DIMENSIONS = 62,
    TENSOR_SHAPE = 65,
    FLOAT_ATTRIBUTE = 85,
    INT_ATTRIBUTE = 86,
    CONTEXT_INPUT_COUNT = 88,
    CONTEXT_INPUT = 90,
    CONTEXT_OUTPUT = 91,
    RELEASE_SHAPE = 99,
    CONTEXT_STREAM = 193,
};
#define CALL(api, place, ...) ((Status * (*)(__VA_ARGS__))(api)[place])
enum { FAIL = 1 };
enum { INT32 = 6, FLOAT16 = 10, BFLOAT16 = 16 };
enum { REQUIRED = 0, OPTIONAL = 1 };

typedef struct Op Op;
struct Op {
    uint32_t version;
    void* (*create)(const Op*, const Function* api, const Info*);
    const char* (*name)(const Op*);
    const char* (*provider)(const Op*);
    int (*input_type)(const Op*, size_t);
    size_t (*input_count)(const Op*);
    int (*output_type)(const Op*, size_t);
    size_t (*output_count)(const Op*);
    void (*compute)(void*, Context*);
    void (*destroy)(void*);
    int (*input_kind)(const Op*, size_t);
    int (*output_kind)(const Op*, size_t);
    int (*input_memory)(const Op*, size_t);
    int (*least_variadic_inputs)(const Op*);
    int (*are_variadic_inputs_alike)(const Op*);
    int (*least_variadic_outputs)(const Op*);
    int (*are_variadic_outputs_alike)(const Op*);
    Status* (*create_or_fail)(const Op*, const Function* api, const Info*, void** kernel);
    Status* (*compute_or_fail)(void*, Context*);
    Status* (*infer_shape)(const Op*, void*);
    int (*first_version)(const Op*);
    int (*last_version)(const Op*);
    size_t (*may_be_in_place)(int**, int**);
    void (*release_in_place)(int*, int*);
    size_t (*aliases)(int**, int**);
    void (*release_aliases)(int*, int*);
    // Ours:
    const char* called;
    size_t inputs, needed, outputs;
    int type;
};

// As cuLaunchKernel.
typedef int (*Launch)(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*, void**, void**);
enum { SWIGLU_BFLOAT16, SWIGLU_FLOAT16, ROTATE_BFLOAT16, ROTATE_FLOAT16, KERNELS };
enum { THREADS = 256, EACH = 8 };  // of a block; numbers that a thread reads at once

static Launch launch_kernel;
static void* kernels[KERNELS];
static char provider_name[64] = "CUDAExecutionProvider";

// Says what launches kernels, and which; before the first session. NULL leaves a kernel as it was. `provider`: of ONNX Runtime,
// whose memory they read.
EXPORT void triune_use(Launch launch, void* const* functions, const char* provider) {
    launch_kernel = launch;
    for (int i = 0; i < KERNELS; i++)
        if (functions[i]) kernels[i] = functions[i];
    snprintf(provider_name, sizeof provider_name, "%s", provider);
}

typedef struct {
    const Function* api;
    int64_t heads, kv_heads;
    float epsilon;
} Kernel;

typedef struct {
    void* numbers;  // NULL: the input is left out
    int type;
    size_t dimensions;
    int64_t sizes[8];
} Tensor;

static Status* failed(const Function* api, const char* why) { return CALL(api, CREATE_STATUS, int, const char*)(FAIL, why); }

static Status* read_tensor(const Function* api, const Value* value, Tensor* tensor) {
    Shape* shape = NULL;
    Status* bad = CALL(api, TENSOR_SHAPE, const Value*, Shape**)(value, &shape);
    if (bad) return bad;
    bad = CALL(api, ELEMENT_TYPE, const Shape*, int*)(shape, &tensor->type);
    if (!bad) bad = CALL(api, DIMENSIONS_COUNT, const Shape*, size_t*)(shape, &tensor->dimensions);
    if (!bad && tensor->dimensions > 8) bad = failed(api, "a tensor has more than 8 dimensions");
    if (!bad) bad = CALL(api, DIMENSIONS, const Shape*, int64_t*, size_t)(shape, tensor->sizes, tensor->dimensions);
    ((void (*)(Shape*))api[RELEASE_SHAPE])(shape);
    return bad ? bad : CALL(api, TENSOR_NUMBERS, Value*, void**)((Value*)value, &tensor->numbers);
}

static Status* read_input(const Function* api, Context* context, size_t index, Tensor* tensor) {
    const Value* value = NULL;
    size_t count = 0;
    *tensor = (Tensor){0};
    Status* bad = CALL(api, CONTEXT_INPUT_COUNT, const Context*, size_t*)(context, &count);
    if (bad || index >= count) return bad;
    bad = CALL(api, CONTEXT_INPUT, const Context*, size_t, const Value**)(context, index, &value);
    return bad || !value ? bad : read_tensor(api, value, tensor);
}

static Status* make_output(const Function* api, Context* context, size_t index, const int64_t* sizes, size_t dimensions,
                           void** numbers) {
    Value* value = NULL;
    Status* bad =
        CALL(api, CONTEXT_OUTPUT, Context*, size_t, const int64_t*, size_t, Value**)(context, index, sizes, dimensions, &value);
    return bad ? bad : CALL(api, TENSOR_NUMBERS, Value*, void**)(value, numbers);
}

static Status* launch(const Function* api, Context* context, int kernel, int64_t threads, void** arguments) {
    void* stream = NULL;
    const int64_t blocks = (threads + THREADS - 1) / THREADS;
    if (!blocks) return NULL;
    if (!launch_kernel || !kernels[kernel]) return failed(api, "no kernel was given for an op of Triune's");
    if (threads > INT32_MAX - THREADS) return failed(api, "more numbers than one launch takes");
    Status* bad = CALL(api, CONTEXT_STREAM, const Context*, void**)(context, &stream);
    if (bad) return bad;
    const int code = launch_kernel(kernels[kernel], (unsigned)blocks, 1, 1, THREADS, 1, 1, 0, stream, arguments, NULL);
    if (!code) return NULL;
    char text[96];
    snprintf(text, sizeof text, "launching a kernel of Triune's failed: CUDA driver error %d", code);
    return failed(api, text);
}

static int is_half(int type) { return type == FLOAT16 || type == BFLOAT16; }

static Status* compute_swiglu(void* state, Context* context) {
    const Function* api = ((Kernel*)state)->api;
    Tensor gate, up;
    Status* bad = read_input(api, context, 0, &gate);
    if (!bad) bad = read_input(api, context, 1, &up);
    if (bad) return bad;
    const int is_one = !up.numbers && !up.dimensions;  // gate and up are its halves
    int fits = is_half(gate.type) && gate.dimensions;
    int64_t count = 1, stride = fits ? gate.sizes[gate.dimensions - 1] : 0;
    if (is_one) {
        fits &= stride % 2 == 0;
        gate.sizes[fits ? gate.dimensions - 1 : 0] = stride / 2;
    } else {
        fits &= gate.type == up.type && gate.dimensions == up.dimensions;
    }
    for (size_t i = 0; fits && i < gate.dimensions; i++) {
        fits = is_one || gate.sizes[i] == up.sizes[i];
        count *= gate.sizes[i];
    }
    if (!fits) return failed(api, "SwiGLU takes two tensors of one shape or both in one, of float16 or bfloat16");
    int64_t columns = gate.sizes[gate.dimensions - 1];
    if (is_one) up.numbers = (uint16_t*)gate.numbers + columns;
    void* y;
    if ((bad = make_output(api, context, 0, gate.sizes, gate.dimensions, &y))) return bad;
    void* arguments[] = {&gate.numbers, &up.numbers, &y, &count, &columns, &stride};
    return launch(api, context, gate.type == BFLOAT16 ? SWIGLU_BFLOAT16 : SWIGLU_FLOAT16, (count + EACH - 1) / EACH, arguments);
}

enum { PACKED, COSINES, SINES, ENDS, PAST, BIAS, QUERY_NORM, KEY_NORM, INPUTS };

static Status* compute_rotate(void* state, Context* context) {
    const Kernel* self = state;
    const Function* api = self->api;
    Tensor in[INPUTS];
    Status* bad = NULL;
    for (size_t i = 0; i < INPUTS; i++)
        if ((bad = read_input(api, context, i, &in[i]))) return bad;
    const int64_t all = self->heads + 2 * self->kv_heads, tokens = in[PACKED].sizes[0], width = in[PACKED].sizes[1];
    const int64_t dim = all ? width / all : 0, half = dim / 2, lanes = dim / (2 * EACH);
    const int type = in[PACKED].type, is_normed = in[QUERY_NORM].numbers != NULL;
    int fits = is_half(type) && in[PACKED].dimensions == 2 && dim * all == width && dim && dim % (2 * EACH) == 0;
    for (int i = COSINES; i <= SINES; i++) fits &= in[i].type == type && in[i].dimensions == 2 && in[i].sizes[1] == half;
    for (int i = ENDS; i <= PAST; i++) fits &= in[i].type == INT32 && in[i].dimensions == 1;
    fits &= in[ENDS].sizes[0] == in[PAST].sizes[0] + 1 && is_normed == (in[KEY_NORM].numbers != NULL);
    for (int i = BIAS; i < INPUTS; i++)
        if (in[i].numbers) fits &= in[i].type == type && in[i].dimensions == 1 && in[i].sizes[0] == (i == BIAS ? width : dim);
    fits &= !is_normed || (lanes <= 32 && (lanes & (lanes - 1)) == 0);  // lanes of a warp share a head
    if (!fits) return failed(api, "RotaryQKV is given shapes or types that it does not take");
    const int64_t sizes[3] = {self->heads * dim, self->kv_heads * dim, self->kv_heads * dim};
    void* y[3];
    for (size_t i = 0; i < 3; i++)
        if ((bad = make_output(api, context, i, (int64_t[]){tokens, sizes[i]}, 2, &y[i]))) return bad;
    int count = (int)tokens, sequences = (int)in[PAST].sizes[0], heads = (int)self->heads, kv_heads = (int)self->kv_heads;
    int size = (int)dim;
    float epsilon = self->epsilon;
    void* arguments[] = {
        &in[PACKED].numbers, &in[BIAS].numbers, &in[QUERY_NORM].numbers, &in[KEY_NORM].numbers, &in[COSINES].numbers,
        &in[SINES].numbers, &in[ENDS].numbers, &in[PAST].numbers, &y[0], &y[1], &y[2], &count, &sequences, &heads, &kv_heads,
        &size, &epsilon,
    };
    return launch(api, context, type == BFLOAT16 ? ROTATE_BFLOAT16 : ROTATE_FLOAT16, tokens * all * lanes, arguments);
}

static Status* create(const Op* op, const Function* api, const Info* info, void** kernel) {
    Kernel* made = calloc(1, sizeof *made);
    if (!made) return failed(api, "out of memory");
    made->api = api;
    Status* bad = NULL;
    if (op->outputs == 3) {
        bad = CALL(api, INT_ATTRIBUTE, const Info*, const char*, int64_t*)(info, "num_heads", &made->heads);
        if (!bad) bad = CALL(api, INT_ATTRIBUTE, const Info*, const char*, int64_t*)(info, "kv_num_heads", &made->kv_heads);
        if (!bad) bad = CALL(api, FLOAT_ATTRIBUTE, const Info*, const char*, float*)(info, "epsilon", &made->epsilon);
    }
    if (bad) free(made);
    else *kernel = made;
    return bad;
}

static const char* name(const Op* op) { return op->called; }
static const char* provider(const Op* op) { return (void)op, provider_name; }
static size_t input_count(const Op* op) { return op->inputs; }
static size_t output_count(const Op* op) { return op->outputs; }
static int input_type(const Op* op, size_t i) { return op->outputs == 3 && (i == ENDS || i == PAST) ? INT32 : op->type; }
static int output_type(const Op* op, size_t i) { return (void)i, op->type; }
static int input_kind(const Op* op, size_t i) { return i < op->needed ? REQUIRED : OPTIONAL; }
static int output_kind(const Op* op, size_t i) { return (void)op, (void)i, REQUIRED; }
static int on_device(const Op* op, size_t i) { return (void)op, (void)i, 0; }
static int one(const Op* op) { return (void)op, 1; }
static int latest(const Op* op) { return (void)op, INT32_MAX; }

#define COMMON                                                                                                               \
    .version = API_VERSION, .name = name, .provider = provider, .input_type = input_type, .input_count = input_count,       \
    .output_type = output_type, .output_count = output_count, .destroy = free, .input_kind = input_kind,                    \
    .output_kind = output_kind, .input_memory = on_device, .least_variadic_inputs = one, .are_variadic_inputs_alike = one,  \
    .least_variadic_outputs = one, .are_variadic_outputs_alike = one, .create_or_fail = create, .first_version = one,       \
    .last_version = latest
#define SWIGLU COMMON, .compute_or_fail = compute_swiglu, .called = "SwiGLU", .inputs = 2, .needed = 1, .outputs = 1
#define ROTATE COMMON, .compute_or_fail = compute_rotate, .called = "RotaryQKV", .inputs = INPUTS, .needed = BIAS, .outputs = 3
static Op ops[] = {
    {SWIGLU, .type = BFLOAT16},
    {SWIGLU, .type = FLOAT16},
    {ROTATE, .type = BFLOAT16},
    {ROTATE, .type = FLOAT16},
};

// What ONNX Runtime calls, by this name, of a library that a session's options register.
EXPORT Status* RegisterCustomOps(Options* options, const ApiBase* base) {
    static Domain* domain;  // of all sessions; as long as the process
    const Function* api = base->functions(API_VERSION);
    Status* bad = NULL;
    if (!api) abort();  // a version before 1.18: preflight refuses it
    if (!domain) {
        bad = CALL(api, CREATE_DOMAIN, const char*, Domain**)("triune.ops", &domain);
        for (size_t i = 0; !bad && i < sizeof ops / sizeof *ops; i++)
            bad = CALL(api, ADD_TO_DOMAIN, Domain*, const Op*)(domain, &ops[i]);
    }
    return bad ? bad : CALL(api, ADD_DOMAIN, Options*, Domain*)(options, domain);
}
