/* What a device driver is to Hub's runtime: one function that gives a table of functions.
 *
 * A driver is a shared library that exports hub_device_get_api. The runtime loads it when a session
 * asks for its device, hands it the code that the compiler wrote for it (PTX, OpenCL C, ...), and calls
 * kernels and prepared operators on memory of the device. Bindings of sizes, loops, branches and what
 * has no kernel stay with the runtime.
 *
 * Versions. A table begins with its size and version; within a major version functions are only
 * appended. A runtime uses no more of a table than struct_size covers and asks for a major version that
 * it knows; a function that a driver lacks is NULL, and its capability bit is 0.
 *
 * Errors. Functions return 0 or a status of hub.h (3 unsupported, 4 code that the device refuses, 8 the
 * device failed, 9 out of memory, 70 anything else); last_error gives the text, the device's own number
 * included, of the calling thread's last failed call.
 *
 * Threads. A device may be used by several threads at once, each queue by one at a time.
 *
 * Addresses are the device's own 64-bit numbers: memory of n bytes at address a holds the addresses a
 * to a + n - 1, and 0 is never one of them. A driver whose device has no addresses makes them up.
 */
#ifndef HUB_DEVICE_H
#define HUB_DEVICE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HUB_DEVICE_MAJOR 1u
#define HUB_DEVICE_MINOR 1u

typedef struct hub_device hub_device;
typedef struct hub_device_queue hub_device_queue;
typedef struct hub_device_module hub_device_module;
typedef struct hub_device_kernel hub_device_kernel;
typedef struct hub_device_graph hub_device_graph;
typedef struct hub_device_op hub_device_op;

/* Capabilities. */
#define HUB_DEVICE_KERNELS 1u /* modules and kernels */
#define HUB_DEVICE_GRAPHS 2u  /* what a queue was given is recorded and launched again as a whole */
#define HUB_DEVICE_OPS 4u     /* prepared operators */

/* What an argument of a kernel is. */
#define HUB_DEVICE_ADDRESS 0u /* an address, of which the kernel uses at least one byte */
#define HUB_DEVICE_SIZE 1u    /* a signed 64-bit number */

/* What a device is. */
#define HUB_DEVICE_HOST 0u        /* the host's own processor, or an emulation on it */
#define HUB_DEVICE_GPU 1u         /* a graphics processor */
#define HUB_DEVICE_ACCELERATOR 2u /* anything else that computes beside the host */

/* A tensor that a prepared operator reads or writes, dense row-major but for its strides (elements). */
typedef struct {
    int32_t dtype; /* ONNX's number */
    int32_t rank;
    int64_t dims[8];
    int64_t strides[8];
} hub_device_tensor;

typedef struct {
    size_t struct_size;
    uint32_t major;
    uint32_t minor;
    uint64_t caps;
    /* The word before the colon in `opencl:0`. */
    char name[16];
    /* Tiers whose code it runs, best first, separated by commas. */
    char tiers[64];

    /* Devices there are. Where the vendor's library is absent: 0 devices, and last_error says so. */
    int32_t (*count)(uint32_t *n);
    int32_t (*open)(uint32_t index, hub_device **out);
    void (*close)(hub_device *);
    /* Name and version of the device, NUL-terminated, cut to `room` bytes. */
    int32_t (*describe)(hub_device *, char *text, size_t room);
    /* Text of this thread's last failed call, NUL-terminated, cut to `room` bytes. */
    void (*last_error)(char *text, size_t room);

    /* Memory, aligned to 256 bytes. */
    int32_t (*memory_new)(hub_device *, uint64_t bytes, uint64_t *address);
    void (*memory_free)(hub_device *, uint64_t address);

    /* Queues: what is put into one happens in order. */
    int32_t (*queue_new)(hub_device *, hub_device_queue **out);
    /* What it was given is done first. */
    void (*queue_free)(hub_device_queue *);
    /* `from` may be changed when it returns. */
    int32_t (*write)(hub_device_queue *, uint64_t to, const void *from, uint64_t bytes);
    /* Waits for everything before. */
    int32_t (*read)(hub_device_queue *, void *to, uint64_t from, uint64_t bytes);
    int32_t (*wait)(hub_device_queue *);

    /* Code of a tier, as the compiler wrote it; a device's compiler may run here, once. */
    int32_t (*module_new)(hub_device *, const char *tier, const void *code, size_t bytes,
                          hub_device_module **out);
    void (*module_free)(hub_device_module *);
    /* A kernel by its name; `kinds` has an entry an argument. It lives as long as its module. */
    int32_t (*kernel_new)(hub_device_module *, const char *name, const uint8_t *kinds, size_t args,
                          hub_device_kernel **out);
    /* Runs so many tiles of a kernel (at least 1), `args` holding 8 bytes an argument. */
    int32_t (*launch)(hub_device_queue *, const hub_device_kernel *, uint64_t tiles,
                      const uint64_t *args);

    /* HUB_DEVICE_GRAPHS: what is put into the queue between the two (launches, operators) is recorded
     * instead of done. `recorded` ends that also where it fails. A graph is replayed by the queue that
     * recorded it, and may be given back after that queue, when nothing of it is under way. */
    int32_t (*record)(hub_device_queue *);
    int32_t (*recorded)(hub_device_queue *, hub_device_graph **out);
    int32_t (*replay)(hub_device_queue *, const hub_device_graph *);
    void (*graph_free)(hub_device_graph *);

    /* HUB_DEVICE_OPS: an operator made ready for tensors of these types, and the bytes of workspace
     * that each run of it needs. `attributes` is JSON. */
    int32_t (*op_new)(hub_device *, const char *name, const char *attributes,
                      const hub_device_tensor *inputs, size_t n_inputs,
                      const hub_device_tensor *outputs, size_t n_outputs, uint64_t *workspace,
                      hub_device_op **out);
    void (*op_free)(hub_device_op *);
    /* `addresses` has one for each input, then for each output. */
    int32_t (*op_run)(hub_device_queue *, const hub_device_op *, const uint64_t *addresses,
                      uint64_t workspace);

    /* From minor version 1 on. What the device is; whoever asks for the best device is not given the
     * host's own processor as one. NULL: an accelerator. */
    int32_t (*kind)(hub_device *, uint32_t *kind);
} hub_device_api;

/* The driver's table for a major version; status 3 where it has none. The table lives as long as the
 * library is loaded. */
int32_t hub_device_get_api(uint32_t major, const hub_device_api **out);

#ifdef __cplusplus
}
#endif

#endif
