/* Runs model bundles. Link with libhub_runtime.so.
 *
 * Statuses: 0 ok, 2 usage (a wrong argument, shape or capacity), 3 unsupported target, device or
 * type, 4 invalid input (not a bundle; values that a node has no meaning for), 7 integrity (a
 * damaged bundle), 8 input or output, 9 a limit exceeded, 70 internal error. What went wrong is in
 * hub_last_error().
 *
 * A session is used by one thread at a time, a model by any number. Environment: HUB_TRUST=any,
 * signed or portable decides whose machine code runs (signed: that of bundles signed by one of the
 * Ed25519 keys in the PEM files that HUB_KEYS lists, others run portable); HUB_CPU=avx512, avx2 or portable forces a tier.
 */
#ifndef HUB_H
#define HUB_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hub_model hub_model;
typedef struct hub_session hub_session;

/* A dense row-major tensor. dtype is ONNX's number (TensorProto.DataType: 1 float, 7 int64 ...);
 * rank is at most 8; bytes is the size of data, at least what dims need. 4-bit types take one value
 * a byte. */
typedef struct {
    int32_t dtype;
    int32_t rank;
    int64_t dims[8];
    void *data;
    size_t bytes;
} hub_tensor;

/* Opens a bundle: maps it and checks its structure, tables and code, but not its weights. While it is
 * open the file must be neither cut (reading past its end is SIGBUS) nor written to: replace bundles
 * by renaming. */
int32_t hub_model_open(const char *path, hub_model **out);

/* Options begin with their size (set struct_size to sizeof, everything else to 0 first) and only ever
 * grow at their end; 0 means the default. A field that is set and that this library does not know is
 * status 3. NULL options are the defaults. */
typedef struct {
    size_t struct_size;
    int32_t copy; /* not 0: read the file into memory instead, so that nothing done to it matters */
    int32_t reserved;
} hub_open_options;

int32_t hub_model_open_with(const char *path, const hub_open_options *, hub_model **out);

/* Checks every hash, those of the weights included. */
int32_t hub_model_verify(const hub_model *);

/* Gives a model back. Sessions keep what they need of it. NULL is allowed. */
void hub_model_close(hub_model *);

/* Describes input or output number `index`: unknown dims are -1, data NULL, bytes 0. The name lives
 * as long as the model. Past the end it returns 2. name and spec may be NULL. */
int32_t hub_model_io(const hub_model *, int32_t is_output, size_t index, const char **name,
                     hub_tensor *spec);

/* Makes a session. device is "cpu", NULL for it; a driver's name and a number, as "opencl:0" (its
 * libhub_NAME.so lies beside the program or this library, or in a folder that HUB_DEVICES lists); or
 * "best": the first of CUDA's, Ascend's and OpenCL's devices that the bundle has code for and that is not
 * the host's processor, else "cpu", which standard error then says. threads <= 0 means the cores this
 * process may use. */
int32_t hub_session_new(const hub_model *, const char *device, int32_t threads, hub_session **out);

/* As hub_session_new, with limits on what each run may use; above one it ends with status 9. */
typedef struct {
    size_t struct_size;
    const char *device;
    const char *tier; /* "avx512", "avx2", "portable" ...; NULL: HUB_CPU, else the best */
    int32_t threads;
    int32_t reserved;
    uint64_t tensor_bytes; /* of one tensor [8 GiB] */
    uint64_t live_bytes;   /* memory [follows from the bytes of constants and inputs] */
    uint64_t steps;        /* portable nodes, each iteration counted [10 million] */
    uint64_t work;         /* multiply-adds or what takes as long [follows likewise] */
    uint64_t sequence;     /* elements of a sequence [2^20] */
} hub_session_options;

int32_t hub_session_new_with(const hub_model *, const hub_session_options *, hub_session **out);

/* Runs the model on all inputs and outputs in the model's order. Inputs may be unaligned and are
 * never written. Outputs are written to out[i].data (capacity out[i].bytes), and dtype, rank, dims
 * and bytes are set; where data is NULL it is pointed at memory of the session, valid until the next
 * run. Too small a capacity is status 2, with dims and bytes set to what is needed. */
int32_t hub_session_run(hub_session *, const hub_tensor *in, size_t n_in, hub_tensor *out,
                        size_t n_out);

/* Frees a session. NULL is allowed. */
void hub_session_free(hub_session *);

/* What went wrong last on this thread, in words; empty if nothing did. Valid until the next call
 * of this library on this thread. */
const char *hub_last_error(void);

#ifdef __cplusplus
}
#endif

#endif
