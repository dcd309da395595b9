/* What hub_ascend.c uses of CANN's ACL, aclrtc and aclnn, declared for checking it where CANN is not:
 * with HUB_ASCEND_CHECK defined, hub_ascend.c includes this file instead of CANN's headers. It is never
 * part of a driver that runs: numbers of enumerators are placeholders here.
 *
 * Written by hand from Huawei's public API reference (hiascend.com, "CANN Community Edition", sections
 * "acl API (C)": runtime management, kernel loading and execution, single-operator API; "Ascend C API:
 * aclrtc"; and the pages of aclnnMatmul, aclnnConvolution, aclnnMaxPool, aclnnAvgPool2d and
 * aclnnInplaceCopy of the operator library). No text of CANN's headers is in it.
 */
#ifndef HUB_CANN_H
#define HUB_CANN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef int aclError;
typedef int32_t aclnnStatus;
typedef void *aclrtStream;
typedef void *aclrtBinHandle;
typedef void *aclrtFuncHandle;
typedef void *aclrtcProg;
typedef struct aclTensor aclTensor;
typedef struct aclIntArray aclIntArray;
typedef struct aclOpExecutor aclOpExecutor;
typedef struct aclrtLaunchKernelCfg aclrtLaunchKernelCfg;
typedef struct aclrtPlaceHolderInfo aclrtPlaceHolderInfo;

enum { ACL_SUCCESS = 0 };
typedef enum { ACL_MEM_MALLOC_HUGE_FIRST } aclrtMemMallocPolicy;
typedef enum { ACL_MEMCPY_HOST_TO_DEVICE, ACL_MEMCPY_DEVICE_TO_HOST } aclrtMemcpyKind;
typedef enum { ACL_DEV_ATTR_VECTOR_CORE_NUM } aclrtDevAttr;
typedef enum { ACL_FORMAT_ND, ACL_FORMAT_NCL, ACL_FORMAT_NCHW, ACL_FORMAT_NCDHW } aclFormat;
typedef enum {
    ACL_FLOAT, ACL_FLOAT16, ACL_BF16, ACL_INT8, ACL_INT16, ACL_INT32, ACL_INT64,
    ACL_UINT8, ACL_UINT16, ACL_UINT32, ACL_UINT64, ACL_BOOL
} aclDataType;
typedef enum { ACL_RT_BINARY_LOAD_OPT_MAGIC } aclrtBinaryLoadOptionType;
enum { ACL_RT_BINARY_MAGIC_ELF_AICORE };
typedef union { uint32_t magic; } aclrtBinaryLoadOptionValue;
typedef struct {
    aclrtBinaryLoadOptionType type;
    aclrtBinaryLoadOptionValue value;
} aclrtBinaryLoadOption;
typedef struct {
    aclrtBinaryLoadOption *options;
    size_t numOpt;
} aclrtBinaryLoadOptions;

aclError aclInit(const char *config);
const char *aclGetRecentErrMsg(void);
aclError aclrtGetDeviceCount(uint32_t *count);
aclError aclrtSetDevice(int32_t device);
aclError aclrtGetDeviceInfo(uint32_t device, aclrtDevAttr attribute, int64_t *value);
const char *aclrtGetSocName(void);
aclError aclrtMalloc(void **memory, size_t size, aclrtMemMallocPolicy policy);
aclError aclrtFree(void *memory);
aclError aclrtMemcpy(void *to, size_t room, const void *from, size_t count, aclrtMemcpyKind kind);
aclError aclrtCreateStream(aclrtStream *stream);
aclError aclrtDestroyStream(aclrtStream stream);
aclError aclrtSynchronizeStream(aclrtStream stream);
aclError aclrtBinaryLoadFromData(const void *data, size_t length,
                                 const aclrtBinaryLoadOptions *options, aclrtBinHandle *binary);
aclError aclrtBinaryUnLoad(aclrtBinHandle binary);
aclError aclrtBinaryGetFunction(const aclrtBinHandle binary, const char *name,
                                aclrtFuncHandle *function);
aclError aclrtLaunchKernelWithHostArgs(aclrtFuncHandle function, uint32_t blocks,
                                       aclrtStream stream, aclrtLaunchKernelCfg *config,
                                       void *arguments, size_t size,
                                       aclrtPlaceHolderInfo *holders, size_t n_holders);

aclError aclrtcCreateProg(aclrtcProg *program, const char *source, const char *name, int n_headers,
                          const char **headers, const char **header_names);
aclError aclrtcCompileProg(aclrtcProg program, int n_options, const char **options);
aclError aclrtcDestroyProg(aclrtcProg *program);
aclError aclrtcGetBinDataSize(aclrtcProg program, size_t *size);
aclError aclrtcGetBinData(aclrtcProg program, char *data);
aclError aclrtcGetCompileLogSize(aclrtcProg program, size_t *size);
aclError aclrtcGetCompileLog(aclrtcProg program, char *log);

aclTensor *aclCreateTensor(const int64_t *dims, uint64_t n_dims, aclDataType type,
                           const int64_t *strides, int64_t offset, aclFormat format,
                           const int64_t *storage, uint64_t n_storage, void *data);
aclnnStatus aclDestroyTensor(const aclTensor *tensor);
aclIntArray *aclCreateIntArray(const int64_t *value, uint64_t size);
aclnnStatus aclDestroyIntArray(const aclIntArray *array);
aclnnStatus aclSetAclOpExecutorRepeatable(aclOpExecutor *executor);
aclnnStatus aclDestroyAclOpExecutor(aclOpExecutor *executor);
aclnnStatus aclSetInputTensorAddr(aclOpExecutor *executor, const size_t index, aclTensor *tensor,
                                  void *address);
aclnnStatus aclSetOutputTensorAddr(aclOpExecutor *executor, const size_t index, aclTensor *tensor,
                                   void *address);

aclnnStatus aclnnMatmulGetWorkspaceSize(const aclTensor *a, const aclTensor *b, aclTensor *out,
                                        int8_t cube_math, uint64_t *workspace,
                                        aclOpExecutor **executor);
aclnnStatus aclnnMatmul(void *workspace, uint64_t size, aclOpExecutor *executor,
                        aclrtStream stream);
aclnnStatus aclnnConvolutionGetWorkspaceSize(const aclTensor *input, const aclTensor *weight,
                                             const aclTensor *bias, const aclIntArray *stride,
                                             const aclIntArray *padding,
                                             const aclIntArray *dilation, bool transposed,
                                             const aclIntArray *output_padding,
                                             const int64_t groups, aclTensor *output,
                                             int8_t cube_math, uint64_t *workspace,
                                             aclOpExecutor **executor);
aclnnStatus aclnnConvolution(void *workspace, const uint64_t size, aclOpExecutor *executor,
                             aclrtStream stream);
aclnnStatus aclnnMaxPoolGetWorkspaceSize(const aclTensor *input, const aclIntArray *kernel,
                                         const aclIntArray *stride, const int64_t auto_pad,
                                         const aclIntArray *pads, const aclIntArray *dilation,
                                         const int64_t ceil_mode, aclTensor *out,
                                         uint64_t *workspace, aclOpExecutor **executor);
aclnnStatus aclnnMaxPool(void *workspace, uint64_t size, aclOpExecutor *executor,
                         aclrtStream stream);
aclnnStatus aclnnAvgPool2dGetWorkspaceSize(const aclTensor *input, const aclIntArray *kernel,
                                           const aclIntArray *stride, const aclIntArray *padding,
                                           const bool ceil_mode, const bool count_padding,
                                           const int64_t divisor, const int8_t cube_math,
                                           aclTensor *out, uint64_t *workspace,
                                           aclOpExecutor **executor);
aclnnStatus aclnnAvgPool2d(void *workspace, uint64_t size, aclOpExecutor *executor,
                           aclrtStream stream);
aclnnStatus aclnnInplaceCopyGetWorkspaceSize(aclTensor *to, const aclTensor *from,
                                             uint64_t *workspace, aclOpExecutor **executor);
aclnnStatus aclnnInplaceCopy(void *workspace, uint64_t size, aclOpExecutor *executor,
                             aclrtStream stream);

#endif
