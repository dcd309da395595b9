/* Ascend NPUs behind Hub's device interface: hub_device.h over CANN's ACL, aclrtc and aclnn.
 *
 * NOT YET RUN ON AN NPU. It has been compiled against declarations written for that purpose (cann.h)
 * and no more; `cargo run -p hub-tests --bin device -- libhub_ascend.so` tells an owner of an NPU
 * what holds. README.md beside this file says how it is built.
 *
 * Operators have two phases in aclnn. The first is done once, when the runtime prepares an operator,
 * and its executor is made repeatable at once, since it could not be afterwards; runs only set addresses.
 * Kernels are Ascend C, compiled by aclrtc when a module is made.
 */
#include "../../include/hub_device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef HUB_ASCEND_CHECK
#include "cann.h"
#else
#include "acl/acl.h"
#include "acl/acl_rt_compile.h"
#include "aclnn/acl_meta.h"
#include "aclnnop/aclnn_avgpool2d.h"
#include "aclnnop/aclnn_convolution.h"
#include "aclnnop/aclnn_copy.h"
#include "aclnnop/aclnn_matmul.h"
#include "aclnnop/aclnn_max_pool.h"
#endif

enum { UNSUPPORTED = 3, REFUSED = 4, FAILED = 8, LIMIT = 9, INTERNAL = 70 };
enum { MAX_TENSORS = 3, MAX_RANK = 8, MAX_SPATIAL = 3 };

/* f32 stays f32 in products. */
enum { KEEP_TYPE = 0 };

struct hub_device {
    int32_t index;
    int64_t cores;
    /* An address for tensors whose own is not known yet. */
    void *somewhere;
};

struct hub_device_queue {
    hub_device *device;
    aclrtStream stream;
};

struct hub_device_module {
    hub_device *device;
    aclrtBinHandle binary;
    struct hub_device_kernel *kernels;
};

struct hub_device_kernel {
    struct hub_device_kernel *next;
    aclrtFuncHandle function;
    size_t args;
};

typedef aclnnStatus (*second_phase)(void *, uint64_t, aclOpExecutor *, aclrtStream);

struct hub_device_op {
    size_t n_inputs, n_tensors;
    aclTensor *tensors[MAX_TENSORS];
    aclOpExecutor *executor;
    second_phase run;
    uint64_t workspace;
};

/* Texts of threads' last failures. */
static __thread char last[2048];

static int32_t fail(int32_t status, const char *what) {
    snprintf(last, sizeof last, "%s", what);
    return status;
}

/* A call of CANN that gave other than success. */
static int32_t failed(int32_t status, const char *call, long number) {
    const char *more = aclGetRecentErrMsg();
    snprintf(last, sizeof last, "%s gives %ld: %s", call, number, more ? more : "no text");
    return status;
}

/* Calls CANN; gives up with a status where that fails. */
#define CANN(status, call)                                                                         \
    do {                                                                                           \
        long cann_gave = (long)(call);                                                             \
        if (cann_gave != ACL_SUCCESS) return failed(status, #call, cann_gave);                     \
    } while (0)

static void last_error(char *text, size_t room) {
    if (text && room > 0) snprintf(text, room, "%s", last);
}

static int started;

static int32_t start(void) {
    if (!started) {
        CANN(UNSUPPORTED, aclInit(NULL));
        started = 1;
    }
    return 0;
}

static int32_t count(uint32_t *n) {
    int32_t status = start();
    *n = 0;
    if (status != 0) return status;
    CANN(UNSUPPORTED, aclrtGetDeviceCount(n));
    return 0;
}

/* A thread's calls are for the device that it chose last. */
static int32_t choose(const hub_device *d) {
    CANN(FAILED, aclrtSetDevice(d->index));
    return 0;
}

static void close_device(hub_device *d) {
    if (d && choose(d) == 0 && d->somewhere) (void)aclrtFree(d->somewhere);
    free(d);
}

static int32_t open_device(uint32_t index, hub_device **out) {
    hub_device *d;
    int32_t status = start();
    if (status != 0) return status;
    d = calloc(1, sizeof *d);
    if (!d) return fail(LIMIT, "no memory for a device");
    d->index = (int32_t)index;
    status = choose(d);
    if (status == 0) {
        aclError e = aclrtMalloc(&d->somewhere, 512, ACL_MEM_MALLOC_HUGE_FIRST);
        if (e != ACL_SUCCESS) status = failed(LIMIT, "aclrtMalloc", (long)e);
    }
    if (status != 0) {
        close_device(d);
        return status;
    }
    if (aclrtGetDeviceInfo(index, ACL_DEV_ATTR_VECTOR_CORE_NUM, &d->cores) != ACL_SUCCESS) d->cores = 0;
    if (d->cores < 1) d->cores = 1;
    *out = d;
    return 0;
}

static int32_t describe(hub_device *d, char *text, size_t room) {
    const char *name = aclrtGetSocName();
    if (room > 0) {
        snprintf(text, room, "%s, %ld vector cores", name ? name : "Ascend", (long)d->cores);
    }
    return 0;
}

static int32_t kind(hub_device *d, uint32_t *out) {
    (void)d;
    *out = HUB_DEVICE_ACCELERATOR;
    return 0;
}

static int32_t memory_new(hub_device *d, uint64_t bytes, uint64_t *address) {
    void *at = NULL;
    int32_t status = choose(d);
    if (status != 0) return status;
    /* Copies round up to 32 bytes; CANN aligns to 512. */
    CANN(LIMIT, aclrtMalloc(&at, (size_t)(bytes + 32), ACL_MEM_MALLOC_HUGE_FIRST));
    *address = (uint64_t)(uintptr_t)at;
    return 0;
}

static void memory_free(hub_device *d, uint64_t address) {
    if (choose(d) == 0) (void)aclrtFree((void *)(uintptr_t)address);
}

static int32_t queue_new(hub_device *d, hub_device_queue **out) {
    hub_device_queue *q;
    aclError e;
    int32_t status = choose(d);
    if (status != 0) return status;
    q = calloc(1, sizeof *q);
    if (!q) return fail(LIMIT, "no memory for a queue");
    q->device = d;
    e = aclrtCreateStream(&q->stream);
    if (e != ACL_SUCCESS) {
        free(q);
        return failed(FAILED, "aclrtCreateStream", (long)e);
    }
    *out = q;
    return 0;
}

static void queue_free(hub_device_queue *q) {
    if (!q) return;
    if (choose(q->device) == 0) {
        (void)aclrtSynchronizeStream(q->stream);
        (void)aclrtDestroyStream(q->stream);
    }
    free(q);
}

static int32_t wait_queue(hub_device_queue *q) {
    int32_t status = choose(q->device);
    if (status != 0) return status;
    CANN(FAILED, aclrtSynchronizeStream(q->stream));
    return 0;
}

/* Copies are not the stream's own: the memory of a caller is not pinned. */
static int32_t write_queue(hub_device_queue *q, uint64_t to, const void *from, uint64_t bytes) {
    int32_t status = wait_queue(q);
    if (status != 0 || bytes == 0) return status;
    CANN(FAILED, aclrtMemcpy((void *)(uintptr_t)to, (size_t)bytes, from, (size_t)bytes,
                             ACL_MEMCPY_HOST_TO_DEVICE));
    return 0;
}

static int32_t read_queue(hub_device_queue *q, void *to, uint64_t from, uint64_t bytes) {
    int32_t status = wait_queue(q);
    if (status != 0 || bytes == 0) return status;
    CANN(FAILED, aclrtMemcpy(to, (size_t)bytes, (const void *)(uintptr_t)from, (size_t)bytes,
                             ACL_MEMCPY_DEVICE_TO_HOST));
    return 0;
}

/* What the compiler says of a program. */
static int32_t refused(aclrtcProg program) {
    size_t size = 0;
    char *log = NULL;
    if (aclrtcGetCompileLogSize(program, &size) == ACL_SUCCESS && size > 0) log = calloc(1, size + 1);
    if (log && aclrtcGetCompileLog(program, log) == ACL_SUCCESS) {
        fail(REFUSED, log);
    } else {
        fail(REFUSED, "aclrtc refuses the program, without a log");
    }
    free(log);
    return REFUSED;
}

static int32_t compile(aclrtcProg program, hub_device_module *m) {
    const char *options[] = {"--npu-arch=dav-2201"};
    aclrtBinaryLoadOption option;
    aclrtBinaryLoadOptions load;
    size_t size = 0;
    char *data;
    aclError e;
    if (aclrtcCompileProg(program, 1, options) != ACL_SUCCESS) return refused(program);
    CANN(REFUSED, aclrtcGetBinDataSize(program, &size));
    data = malloc(size > 0 ? size : 1);
    if (!data) return fail(LIMIT, "no memory for a program");
    e = aclrtcGetBinData(program, data);
    if (e == ACL_SUCCESS) {
        option.type = ACL_RT_BINARY_LOAD_OPT_MAGIC;
        option.value.magic = ACL_RT_BINARY_MAGIC_ELF_AICORE;
        load.options = &option;
        load.numOpt = 1;
        e = aclrtBinaryLoadFromData(data, size, &load, &m->binary);
    }
    free(data);
    return e == ACL_SUCCESS ? 0 : failed(REFUSED, "loading the compiled program", (long)e);
}

static void module_free(hub_device_module *m) {
    if (!m) return;
    while (m->kernels) {
        hub_device_kernel *k = m->kernels;
        m->kernels = k->next;
        free(k);
    }
    if (m->binary && choose(m->device) == 0) (void)aclrtBinaryUnLoad(m->binary);
    free(m);
}

static int32_t module_new(hub_device *d, const char *tier, const void *code, size_t bytes,
                          hub_device_module **out) {
    aclrtcProg program = NULL;
    hub_device_module *m;
    char *source;
    aclError e;
    int32_t status = choose(d);
    if (status != 0) return status;
    if (strcmp(tier, "dav2201") != 0) return fail(UNSUPPORTED, "code of another tier");
    m = calloc(1, sizeof *m);
    source = malloc(bytes + 1);
    if (!m || !source) {
        free(m);
        free(source);
        return fail(LIMIT, "no memory for a program");
    }
    m->device = d;
    memcpy(source, code, bytes);
    source[bytes] = 0;
    /* A program of nothing but operators' records has no kernel to compile. */
    if (strstr(source, "__global__")) {
        e = aclrtcCreateProg(&program, source, "hub.asc", 0, NULL, NULL);
        status = e == ACL_SUCCESS ? compile(program, m) : failed(REFUSED, "aclrtcCreateProg", (long)e);
        if (program) (void)aclrtcDestroyProg(&program);
    }
    free(source);
    if (status != 0) {
        module_free(m);
        return status;
    }
    *out = m;
    return 0;
}

static int32_t kernel_new(hub_device_module *m, const char *name, const uint8_t *kinds, size_t args,
                          hub_device_kernel **out) {
    aclrtFuncHandle function = NULL;
    hub_device_kernel *k;
    int32_t status = choose(m->device);
    (void)kinds; /* An address and a number are 8 bytes each. */
    if (status != 0) return status;
    if (!m->binary) return fail(REFUSED, "the program has no kernels");
    CANN(REFUSED, aclrtBinaryGetFunction(m->binary, name, &function));
    k = calloc(1, sizeof *k);
    if (!k) return fail(LIMIT, "no memory for a kernel");
    k->function = function;
    k->args = args;
    k->next = m->kernels;
    m->kernels = k;
    *out = k;
    return 0;
}

static int32_t launch(hub_device_queue *q, const hub_device_kernel *k, uint64_t tiles,
                      const uint64_t *args) {
    uint64_t block[256];
    uint64_t cores = (uint64_t)q->device->cores;
    int32_t status = choose(q->device);
    if (status != 0) return status;
    if (k->args + 1 > sizeof block / sizeof *block) return fail(UNSUPPORTED, "over 255 arguments");
    memcpy(block, args, k->args * sizeof *block);
    block[k->args] = tiles;
    CANN(FAILED, aclrtLaunchKernelWithHostArgs(k->function, (uint32_t)(tiles < cores ? tiles : cores),
                                               q->stream, NULL, block,
                                               (k->args + 1) * sizeof *block, NULL, 0));
    return 0;
}

/* ACL's number of an element type, from ONNX's; -1 where there is none. */
static int element(int32_t onnx) {
    switch (onnx) {
    case 1: return ACL_FLOAT;
    case 2: return ACL_UINT8;
    case 3: return ACL_INT8;
    case 4: return ACL_UINT16;
    case 5: return ACL_INT16;
    case 6: return ACL_INT32;
    case 7: return ACL_INT64;
    case 9: return ACL_BOOL;
    case 10: return ACL_FLOAT16;
    case 12: return ACL_UINT32;
    case 13: return ACL_UINT64;
    case 16: return ACL_BF16;
    default: return -1;
    }
}

static aclTensor *tensor(const hub_device *d, const hub_device_tensor *t, int image) {
    static const aclFormat formats[] = {ACL_FORMAT_NCL, ACL_FORMAT_NCHW, ACL_FORMAT_NCDHW};
    int64_t storage = 1;
    int32_t i;
    int type = element(t->dtype);
    aclFormat format = ACL_FORMAT_ND;
    if (type < 0 || t->rank < 0 || t->rank > MAX_RANK) return NULL;
    if (image && t->rank >= 3 && t->rank <= 5) format = formats[t->rank - 3];
    for (i = 0; i < t->rank; ++i) {
        if (t->dims[i] > 0) storage += (t->dims[i] - 1) * t->strides[i];
    }
    return aclCreateTensor(t->dims, (uint64_t)t->rank, (aclDataType)type, t->strides, 0, format,
                           &storage, 1, d->somewhere);
}

/* The numbers of a list in an operator's attributes, which the compiler writes without spaces in names:
 * "name":[1, 2] or "name":1. Gives how many, -1 where there is no such name or there are too many. */
static int numbers(const char *json, const char *name, int64_t *out, int room) {
    char key[32];
    const char *at;
    char *end;
    int n = 0;
    snprintf(key, sizeof key, "\"%s\":", name);
    at = strstr(json, key);
    if (!at) return -1;
    at += strlen(key);
    if (*at != '[') {
        out[0] = strtoll(at, &end, 10);
        return end == at ? -1 : 1;
    }
    ++at;
    while (*at && *at != ']') {
        if (n == room) return -1;
        out[n] = strtoll(at, &end, 10);
        if (end == at) return -1;
        ++n;
        at = end;
        while (*at == ',' || *at == ' ') ++at;
    }
    return n;
}

/* A convolution's or window's attributes as ACL has them. */
struct geometry {
    int axes;
    int64_t pads[2 * MAX_SPATIAL], kernel[MAX_SPATIAL], groups;
    aclIntArray *stride, *dilation, *padding, *window, *zeros;
};

static int symmetric(const struct geometry *g) {
    int i;
    for (i = 0; i < g->axes; ++i) {
        if (g->pads[i] != g->pads[g->axes + i]) return 0;
    }
    return 1;
}

static int read_geometry(const char *json, struct geometry *g) {
    int64_t stride[MAX_SPATIAL], dilation[MAX_SPATIAL], zeros[MAX_SPATIAL] = {0};
    int n = numbers(json, "strides", stride, MAX_SPATIAL), k;
    memset(g, 0, sizeof *g);
    if (n < 1 || numbers(json, "dilations", dilation, MAX_SPATIAL) != n) return 0;
    if (numbers(json, "paddings", g->pads, 2 * MAX_SPATIAL) != 2 * n) return 0;
    g->axes = n;
    k = numbers(json, "kernel", g->kernel, MAX_SPATIAL);
    if (k >= 0 && k != n) return 0;
    if (numbers(json, "groups", &g->groups, 1) != 1) g->groups = 1;
    g->stride = aclCreateIntArray(stride, (uint64_t)n);
    g->dilation = aclCreateIntArray(dilation, (uint64_t)n);
    g->zeros = aclCreateIntArray(zeros, (uint64_t)n);
    if (k == n) g->window = aclCreateIntArray(g->kernel, (uint64_t)n);
    return 1;
}

static void free_geometry(struct geometry *g) {
    aclIntArray *all[5];
    int i;
    all[0] = g->stride, all[1] = g->dilation, all[2] = g->padding, all[3] = g->window, all[4] = g->zeros;
    for (i = 0; i < 5; ++i) {
        if (all[i]) (void)aclDestroyIntArray(all[i]);
    }
}

/* Pads before each axis; of two axes before and after each, in ACL's order top, bottom, left, right. */
static void padding(struct geometry *g, int each_side) {
    int64_t four[4];
    if (each_side && g->axes == 2) {
        four[0] = g->pads[0], four[1] = g->pads[2], four[2] = g->pads[1], four[3] = g->pads[3];
        g->padding = aclCreateIntArray(four, 4);
    } else {
        g->padding = aclCreateIntArray(g->pads, (uint64_t)g->axes);
    }
}

/* The first phase of an operator whose tensors are made. */
static int32_t first_phase(const char *name, const char *json, hub_device_op *op) {
    aclTensor **t = op->tensors;
    struct geometry g;
    aclnnStatus e;
    if (strcmp(name, "MatMul") == 0) {
        op->run = aclnnMatmul;
        CANN(UNSUPPORTED, aclnnMatmulGetWorkspaceSize(t[0], t[1], t[2], KEEP_TYPE, &op->workspace,
                                                      &op->executor));
        return 0;
    }
    if (strcmp(name, "Copy") == 0) {
        op->run = aclnnInplaceCopy;
        CANN(UNSUPPORTED, aclnnInplaceCopyGetWorkspaceSize(t[1], t[0], &op->workspace, &op->executor));
        return 0;
    }
    if (!read_geometry(json, &g)) return fail(REFUSED, "attributes that are no geometry");
    if (strcmp(name, "Convolution") == 0 && (g.axes == 2 || symmetric(&g))) {
        padding(&g, !symmetric(&g));
        op->run = aclnnConvolution;
        e = aclnnConvolutionGetWorkspaceSize(t[0], t[1], NULL, g.stride, g.padding, g.dilation, false,
                                             g.zeros, g.groups, t[2], KEEP_TYPE, &op->workspace,
                                             &op->executor);
    } else if (strcmp(name, "MaxPool") == 0 && g.axes == 2 && g.window) {
        padding(&g, 1);
        op->run = aclnnMaxPool;
        e = aclnnMaxPoolGetWorkspaceSize(t[0], g.window, g.stride, 0, g.padding, g.dilation, 0, t[1],
                                         &op->workspace, &op->executor);
    } else if (strcmp(name, "SumPool") == 0 && g.axes == 2 && g.window && symmetric(&g)) {
        /* A mean whose divisor is one. */
        padding(&g, 0);
        op->run = aclnnAvgPool2d;
        e = aclnnAvgPool2dGetWorkspaceSize(t[0], g.window, g.stride, g.padding, false, true, 1, KEEP_TYPE,
                                           t[1], &op->workspace, &op->executor);
    } else {
        free_geometry(&g);
        return fail(UNSUPPORTED, "no operator of this name and geometry");
    }
    free_geometry(&g);
    return e == ACL_SUCCESS ? 0 : failed(UNSUPPORTED, name, (long)e);
}

static void op_free(hub_device_op *op) {
    size_t i;
    if (!op) return;
    if (op->executor) (void)aclDestroyAclOpExecutor(op->executor);
    for (i = 0; i < op->n_tensors; ++i) {
        if (op->tensors[i]) (void)aclDestroyTensor(op->tensors[i]);
    }
    free(op);
}

static int32_t op_new(hub_device *d, const char *name, const char *attributes,
                      const hub_device_tensor *inputs, size_t n_inputs,
                      const hub_device_tensor *outputs, size_t n_outputs, uint64_t *workspace,
                      hub_device_op **out) {
    const int image = strcmp(name, "MatMul") != 0 && strcmp(name, "Copy") != 0;
    const size_t want = strcmp(name, "MatMul") == 0 || strcmp(name, "Convolution") == 0 ? 2 : 1;
    hub_device_op *op;
    size_t i;
    int32_t status = choose(d);
    if (status != 0) return status;
    if (n_inputs != want || n_outputs != 1) return fail(REFUSED, "an operator of other tensors");
    op = calloc(1, sizeof *op);
    if (!op) return fail(LIMIT, "no memory for an operator");
    op->n_inputs = n_inputs;
    op->n_tensors = n_inputs + n_outputs;
    for (i = 0; i < op->n_tensors && status == 0; ++i) {
        op->tensors[i] = tensor(d, i < n_inputs ? &inputs[i] : &outputs[i - n_inputs], image);
        if (!op->tensors[i]) status = fail(UNSUPPORTED, "a tensor of this type");
    }
    if (status == 0) status = first_phase(name, attributes, op);
    if (status == 0) {
        aclnnStatus e = aclSetAclOpExecutorRepeatable(op->executor);
        if (e != ACL_SUCCESS) status = failed(UNSUPPORTED, "aclSetAclOpExecutorRepeatable", (long)e);
    }
    if (status != 0) {
        op_free(op);
        return status;
    }
    *workspace = op->workspace;
    *out = op;
    return 0;
}

static int32_t op_run(hub_device_queue *q, const hub_device_op *op, const uint64_t *addresses,
                      uint64_t workspace) {
    size_t i;
    int32_t status = choose(q->device);
    if (status != 0) return status;
    for (i = 0; i < op->n_tensors; ++i) {
        void *at = (void *)(uintptr_t)addresses[i];
        if (i < op->n_inputs) {
            CANN(FAILED, aclSetInputTensorAddr(op->executor, i, op->tensors[i], at));
        } else {
            CANN(FAILED, aclSetOutputTensorAddr(op->executor, i - op->n_inputs, op->tensors[i], at));
        }
    }
    CANN(FAILED, op->run(op->workspace > 0 ? (void *)(uintptr_t)workspace : NULL, op->workspace,
                         op->executor, q->stream));
    return 0;
}

static const hub_device_api table = {
    sizeof(hub_device_api),
    HUB_DEVICE_MAJOR,
    HUB_DEVICE_MINOR,
    HUB_DEVICE_KERNELS | HUB_DEVICE_OPS,
    "ascend",
    "dav2201",
    count,
    open_device,
    close_device,
    describe,
    last_error,
    memory_new,
    memory_free,
    queue_new,
    queue_free,
    write_queue,
    read_queue,
    wait_queue,
    module_new,
    module_free,
    kernel_new,
    launch,
    NULL,
    NULL,
    NULL,
    NULL,
    op_new,
    op_free,
    op_run,
    kind,
};

int32_t hub_device_get_api(uint32_t major, const hub_device_api **out) {
    if (major != HUB_DEVICE_MAJOR || !out) return UNSUPPORTED;
    *out = &table;
    return 0;
}
