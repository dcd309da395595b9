// A stand-in, for a host's compiler, for those calls of Ascend C that Hub's kernels use. Written from
// what Huawei's public documentation of the Ascend C API says of each call; nothing of CANN is in it.
//
// It is stricter than a core. A core's unified buffer is an array here, of which each byte knows whether
// it was written, and each block of 32 bytes which pipe wrote or read it last and whether a barrier or a
// queue has made the others wait since. Faults: operands that are not aligned, buffers beyond the
// unified buffer, tensors of a queue used out of turn, bytes read that nothing wrote, pipes that do not
// wait for one another, and global memory that is not there (the driver knows).
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <exception>
#include <string>
#include <utility>

#define __aicore__
#define __global__
#define __vector__
#define __gm__
#define GM_ADDR __gm__ uint8_t *

struct half {
  uint16_t bits;
  half() : bits(0) {}
  explicit half(float f) {
    uint32_t b;
    std::memcpy(&b, &f, 4);
    const uint32_t sign = b >> 16 & 0x8000u, magnitude = b & 0x7FFFFFFFu;
    if (magnitude > 0x7F800000u) {
      bits = (uint16_t)(sign | 0x7E00u);
    } else if (magnitude >= 0x477FF000u) {
      bits = (uint16_t)(sign | 0x7C00u);
    } else {
      // To a multiple of the last place, by the processor's own rounding.
      float a;
      std::memcpy(&a, &magnitude, 4);
      int e;
      std::frexp(a, &e);
      e = e < -13 ? -13 : e;
      const float unit = std::ldexp(1.0f, e - 11);
      const float n = std::nearbyint(a / unit);
      const int m = (int)n;
      bits = (uint16_t)(sign | (m == 0 ? 0 : (uint32_t)((e + 13) << 10) + (uint32_t)m));
    }
  }
  operator float() const {
    const int e = bits >> 10 & 31, m = bits & 1023;
    const float a = e == 31 ? (m ? NAN : INFINITY) : e == 0 ? std::ldexp((float)m, -24) : std::ldexp((float)(m | 1024), e - 25);
    return bits & 0x8000u ? -a : a;
  }
};

struct bfloat16_t {
  uint16_t bits;
  bfloat16_t() : bits(0) {}
  explicit bfloat16_t(float f) {
    uint32_t b;
    std::memcpy(&b, &f, 4);
    bits = (uint16_t)(f != f ? b >> 16 | 64u : (b + 0x7FFFu + (b >> 16 & 1u)) >> 16);
  }
  operator float() const {
    const uint32_t b = (uint32_t)bits << 16;
    float f;
    std::memcpy(&f, &b, 4);
    return f;
  }
};

namespace hub_emu {
struct Fault {
  std::string what;
};

[[noreturn]] inline void fault(const std::string &what) { throw Fault{what}; }

// The driver's: global memory at an address, of so many bytes; text where it is not there.
typedef const char *(*Global)(void *driver, uint64_t at, uint64_t bytes, int write);

enum Pipe : uint8_t { NONE, SCALAR, VECTOR, COPY };

struct Core {
  static constexpr uint32_t SIZE = 192 << 10, BLOCK = 32;
  alignas(64) uint8_t bytes[SIZE];
  uint8_t known[SIZE];
  uint8_t writer[SIZE / BLOCK];
  // Barriers that there had been: of all pipes, of the vector pipe.
  uint32_t written_all[SIZE / BLOCK], written_vector[SIZE / BLOCK], read_all[SIZE / BLOCK];
  uint32_t all, vector, used;
  int64_t index, count;
  Global global;
  void *driver;

  void start() {
    std::memset(known, 0, SIZE);
    std::memset(writer, NONE, sizeof writer);
    std::memset(read_all, 0, sizeof read_all);
    all = vector = 1;
    used = 0;
  }
  uint32_t reserve(uint32_t n) {
    if (n == 0 || n % BLOCK != 0) fault("a buffer of " + std::to_string(n) + " bytes, not a multiple of 32");
    if (n > SIZE - used) fault("buffers beyond the unified buffer's " + std::to_string(SIZE) + " bytes");
    used += n;
    return used - n;
  }
  void within(uint32_t at, uint32_t n, const char *who) const {
    if (at > SIZE || n > SIZE - at) fault(std::string(who) + " runs past the unified buffer");
  }
  void reads(Pipe p, uint32_t at, uint32_t n, const char *who) {
    within(at, n, who);
    if (n == 0) return;
    if (std::memchr(known + at, 0, n)) fault(std::string(who) + " reads bytes that nothing wrote");
    for (uint32_t b = at / BLOCK; b <= (at + n - 1) / BLOCK; ++b) {
      waits(p, b, who);
      if (p == VECTOR) read_all[b] = all;
    }
  }
  void writes(Pipe p, uint32_t at, uint32_t n, const char *who) {
    within(at, n, who);
    if (n == 0) return;
    for (uint32_t b = at / BLOCK; b <= (at + n - 1) / BLOCK; ++b) {
      waits(p, b, who);
      if (p == SCALAR && read_all[b] == all) fault(std::string(who) + " writes what a vector instruction may still read");
      writer[b] = p;
      written_all[b] = all;
      written_vector[b] = vector;
    }
    std::memset(known + at, 1, n);
  }
  void waits(Pipe p, uint32_t b, const char *who) const {
    if (writer[b] == NONE) return;
    if (writer[b] == p) {
      if (p == VECTOR && written_vector[b] == vector) fault(std::string(who) + " needs a barrier of the vector pipe before it");
      return;
    }
    if (writer[b] == COPY) fault(std::string(who) + " uses a tensor that is still being copied: EnQue and DeQue come first");
    if (p == COPY || written_all[b] == all) fault(std::string(who) + " does not wait for the pipe that wrote its operand");
  }
  // A queue has made all wait.
  void settle(uint32_t at, uint32_t n) {
    for (uint32_t b = at / BLOCK; b < (at + n + BLOCK - 1) / BLOCK; ++b) writer[b] = NONE;
  }
  void memory(const void *at, uint64_t bytes, int write) {
    const char *why = global(driver, (uint64_t)at, bytes, write);
    if (why) fault(why);
  }
};

inline Core &core() {
  static thread_local Core one;
  return one;
}
} // namespace hub_emu

namespace AscendC {
using hub_emu::core;
using hub_emu::fault;

enum class TPosition { GM, VECIN, VECOUT, VECCALC };
enum pipe_t { PIPE_V, PIPE_ALL };
enum class RoundMode { CAST_NONE, CAST_RINT, CAST_FLOOR, CAST_CEIL, CAST_ROUND, CAST_TRUNC };
enum class CMPMODE { LT, GT, EQ, LE, GE, NE };
enum class SELMODE { VSEL_TENSOR_TENSOR_MODE };

inline int64_t GetBlockIdx() { return core().index; }
inline int64_t GetBlockNum() { return core().count; }

template <pipe_t P> inline void PipeBarrier() {
  ++core().vector;
  if (P == PIPE_ALL) ++core().all;
}

// Of a queue's buffer: where it is in its turn.
enum class Turn : uint8_t { FREE, FILLED, QUEUED, TAKEN };

template <class T> struct LocalTensor {
  uint32_t at = 0, room = 0;
  const Turn *turn = nullptr;
  bool in = false;

  LocalTensor operator[](uint32_t i) const {
    LocalTensor t = *this;
    const uint64_t by = (uint64_t)i * sizeof(T);
    if (by > room) fault("an offset past a tensor's end");
    t.at += (uint32_t)by;
    t.room -= (uint32_t)by;
    return t;
  }
  template <class U> LocalTensor<U> ReinterpretCast() const { return LocalTensor<U>{at, room, turn, in}; }
  uint32_t bytes(uint32_t n, const char *who) const {
    if ((uint64_t)n * sizeof(T) > room) fault(std::string(who) + " runs past a tensor's end");
    return n * sizeof(T);
  }
  // An operand of the vector unit or of copies.
  T *operand(const char *who) const {
    if (at % 32 != 0) fault(std::string(who) + " on a tensor that is not aligned to 32 bytes");
    return (T *)(core().bytes + at);
  }
  void usable(bool write, bool copy, const char *who) const {
    if (!turn) return;
    // Copies fill what comes in and read what goes out; instructions do the rest.
    const Turn need = (in ? (copy ? Turn::FILLED : Turn::TAKEN) : (copy ? Turn::TAKEN : Turn::FILLED));
    if (*turn != need || (write && in && !copy)) fault(std::string(who) + " on a queue's tensor out of its turn");
  }
  T *read(uint32_t n, const char *who) const {
    T *p = operand(who);
    usable(false, false, who);
    core().reads(hub_emu::VECTOR, at, bytes(n, who), who);
    return p;
  }
  T *write(uint32_t n, const char *who) const {
    T *p = operand(who);
    usable(true, false, who);
    core().writes(hub_emu::VECTOR, at, bytes(n, who), who);
    return p;
  }
  T GetValue(uint32_t i) const {
    const LocalTensor t = (*this)[i];
    usable(false, false, "GetValue");
    core().reads(hub_emu::SCALAR, t.at, t.bytes(1, "GetValue"), "GetValue");
    T v;
    std::memcpy((void *)&v, core().bytes + t.at, sizeof(T));
    return v;
  }
  void SetValue(uint32_t i, T v) const {
    const LocalTensor t = (*this)[i];
    usable(true, false, "SetValue");
    core().writes(hub_emu::SCALAR, t.at, t.bytes(1, "SetValue"), "SetValue");
    std::memcpy(core().bytes + t.at, (const void *)&v, sizeof(T));
  }
};

template <class T> struct GlobalTensor {
  T *at = nullptr;
  uint64_t count = 0;
  void SetGlobalBuffer(T *p, uint64_t n) {
    if ((uint64_t)p % sizeof(T) != 0) fault("global memory that is not aligned to its elements");
    at = p;
    count = n;
  }
  T GetValue(uint64_t i) const {
    if (i >= count) fault("GetValue past a global tensor's end");
    core().memory(at + i, sizeof(T), 0);
    T v;
    std::memcpy((void *)&v, (const void *)(at + i), sizeof(T));
    return v;
  }
};

template <TPosition P> struct TBuf {
  uint32_t at = 0, len = 0;
  template <class T> LocalTensor<T> Get() const { return LocalTensor<T>{at, len}; }
  template <class T> LocalTensor<T> GetWithOffset(uint32_t n, uint32_t offset) const {
    if ((uint64_t)offset + (uint64_t)n * sizeof(T) > len) fault("a tensor past its buffer's end");
    return LocalTensor<T>{at + offset, (uint32_t)(n * sizeof(T))};
  }
};

template <TPosition P, int DEPTH> struct TQue {
  static constexpr int MOST = 8;
  uint32_t at[MOST], len = 0;
  Turn turn[MOST];
  int buffers = 0, queued[MOST], waiting = 0;

  ~TQue() noexcept(false) {
    for (int i = 0; i < buffers; ++i)
      if (turn[i] != Turn::FREE && !std::uncaught_exceptions()) fault("a queue's tensor is not given back");
  }
  template <class T> LocalTensor<T> AllocTensor() {
    for (int i = 0; i < buffers; ++i) {
      if (turn[i] != Turn::FREE) continue;
      turn[i] = Turn::FILLED;
      core().settle(at[i], len);
      std::memset(core().known + at[i], 0, len);
      std::memset(core().read_all + at[i] / 32, 0, len / 32 * 4);
      return LocalTensor<T>{at[i], len, &turn[i], P == TPosition::VECIN};
    }
    fault("AllocTensor of a queue whose buffers are all in use");
  }
  template <class T> int slot(const LocalTensor<T> &t, Turn need, const char *who) {
    for (int i = 0; i < buffers; ++i)
      if (t.turn == &turn[i] && turn[i] == need) return i;
    fault(std::string(who) + " of a tensor out of its turn");
  }
  template <class T> bool EnQue(const LocalTensor<T> &t) {
    const int i = slot(t, Turn::FILLED, "EnQue");
    if (waiting == DEPTH) fault("EnQue beyond a queue's depth");
    turn[i] = Turn::QUEUED;
    queued[waiting++] = i;
    return true;
  }
  template <class T> LocalTensor<T> DeQue() {
    if (waiting == 0) fault("DeQue of an empty queue");
    const int i = queued[0];
    std::memmove(queued, queued + 1, sizeof(int) * --waiting);
    turn[i] = Turn::TAKEN;
    core().settle(at[i], len);
    return LocalTensor<T>{at[i], len, &turn[i], P == TPosition::VECIN};
  }
  template <class T> void FreeTensor(const LocalTensor<T> &t) { turn[slot(t, Turn::TAKEN, "FreeTensor")] = Turn::FREE; }
};

struct TPipe {
  TPipe() { core().start(); }
  template <TPosition P, int D> void InitBuffer(TQue<P, D> &q, int n, uint32_t bytes) {
    if (n > q.MOST || n < 1) fault("a queue of " + std::to_string(n) + " buffers");
    q.buffers = n;
    q.len = bytes;
    for (int i = 0; i < n; ++i) {
      q.at[i] = core().reserve(bytes);
      q.turn[i] = Turn::FREE;
    }
  }
  template <TPosition P> void InitBuffer(TBuf<P> &b, uint32_t bytes) {
    b.at = core().reserve(bytes);
    b.len = bytes;
  }
};

struct DataCopyExtParams {
  uint16_t blockCount;
  uint32_t blockLen, srcStride, dstStride, rsv;
};
template <class T> struct DataCopyPadExtParams {
  bool isPad;
  uint8_t leftPadding, rightPadding;
  T paddingValue;
};

inline void one_block(const DataCopyExtParams &how) {
  if (how.blockCount != 1 || how.srcStride || how.dstStride || how.blockLen == 0) fault("DataCopyPad of other than one block");
}

template <class T>
void DataCopyPad(const LocalTensor<T> &to, const GlobalTensor<T> &from, const DataCopyExtParams &how, const DataCopyPadExtParams<T> &pad) {
  one_block(how);
  if (pad.isPad) fault("DataCopyPad that pads");
  if (how.blockLen > from.count * sizeof(T)) fault("DataCopyPad past a global tensor's end");
  to.usable(true, true, "DataCopyPad");
  T *p = to.operand("DataCopyPad");
  // What fills the last block of 32 bytes is not to be read.
  if ((how.blockLen + 31) / 32 * 32 > to.room) fault("DataCopyPad past a tensor's end");
  core().memory(from.at, how.blockLen, 0);
  core().writes(hub_emu::COPY, to.at, how.blockLen, "DataCopyPad");
  std::memcpy((void *)p, (const void *)from.at, how.blockLen);
}

template <class T>
void DataCopyPad(const GlobalTensor<T> &to, const LocalTensor<T> &from, const DataCopyExtParams &how) {
  one_block(how);
  if (how.blockLen > to.count * sizeof(T)) fault("DataCopyPad past a global tensor's end");
  from.usable(false, true, "DataCopyPad");
  const T *p = from.operand("DataCopyPad");
  if (how.blockLen > from.room) fault("DataCopyPad past a tensor's end");
  core().reads(hub_emu::COPY, from.at, how.blockLen, "DataCopyPad");
  core().memory(to.at, how.blockLen, 1);
  std::memcpy((void *)to.at, (const void *)p, how.blockLen);
}

// Vector instructions. Operands may be one tensor, not overlap otherwise.
template <class T> void apart(const LocalTensor<T> &d, uint32_t s, uint32_t n, const char *who) {
  const uint32_t bytes = n * sizeof(T);
  if (d.at != s && d.at < s + bytes && s < d.at + bytes) fault(std::string(who) + " of operands that overlap");
}

#define HUB_TWO(NAME, EXPR)                                                                                  \
  template <class T> void NAME(const LocalTensor<T> &d, const LocalTensor<T> &a, const LocalTensor<T> &b, uint32_t n) { \
    apart(d, a.at, n, #NAME);                                                                                \
    apart(d, b.at, n, #NAME);                                                                                \
    const T *x = a.read(n, #NAME), *y = b.read(n, #NAME);                                                    \
    T *z = d.write(n, #NAME);                                                                                \
    for (uint32_t i = 0; i < n; ++i) z[i] = (EXPR);                                                          \
  }
template <class T> T wrapped(int64_t v) { return (T)v; }
template <class T> T sum(T x, T y) { return (T)((uint32_t)x + (uint32_t)y); }
template <class T> T difference(T x, T y) { return (T)((uint32_t)x - (uint32_t)y); }
template <class T> T product(T x, T y) { return (T)((uint32_t)x * (uint32_t)y); }
inline float sum(float x, float y) { return x + y; }
inline float difference(float x, float y) { return x - y; }
inline float product(float x, float y) { return x * y; }
HUB_TWO(Add, sum(x[i], y[i]))
HUB_TWO(Sub, difference(x[i], y[i]))
HUB_TWO(Mul, product(x[i], y[i]))
HUB_TWO(Div, x[i] / y[i])
HUB_TWO(Max, x[i] > y[i] ? x[i] : y[i])
HUB_TWO(Min, x[i] < y[i] ? x[i] : y[i])
HUB_TWO(And, (T)(x[i] & y[i]))
HUB_TWO(Or, (T)(x[i] | y[i]))

// Rounded twice here: kernels may not count on once.
inline void MulAddDst(const LocalTensor<float> &d, const LocalTensor<float> &a, const LocalTensor<float> &b, uint32_t n) {
  const float *x = a.read(n, "MulAddDst"), *y = b.read(n, "MulAddDst"), *c = d.read(n, "MulAddDst");
  float *z = d.write(n, "MulAddDst");
  for (uint32_t i = 0; i < n; ++i) z[i] = x[i] * y[i] + c[i];
}

#define HUB_ONE(NAME, EXPR)                                                                    \
  template <class T> void NAME(const LocalTensor<T> &d, const LocalTensor<T> &a, uint32_t n) { \
    apart(d, a.at, n, #NAME);                                                                  \
    const T *x = a.read(n, #NAME);                                                             \
    T *z = d.write(n, #NAME);                                                                  \
    for (uint32_t i = 0; i < n; ++i) z[i] = (EXPR);                                            \
  }
HUB_ONE(Abs, (T)std::fabs(x[i]))
HUB_ONE(Sqrt, (T)std::sqrt(x[i]))
HUB_ONE(Not, (T)~x[i])

#define HUB_BY(NAME, EXPR)                                                                          \
  template <class T> void NAME(const LocalTensor<T> &d, const LocalTensor<T> &a, T y, uint32_t n) { \
    apart(d, a.at, n, #NAME);                                                                       \
    const T *x = a.read(n, #NAME);                                                                  \
    T *z = d.write(n, #NAME);                                                                       \
    for (uint32_t i = 0; i < n; ++i) z[i] = (EXPR);                                                 \
  }
HUB_BY(Adds, sum(x[i], y))
HUB_BY(Muls, product(x[i], y))
HUB_BY(ShiftLeft, (T)((uint32_t)x[i] << y))
HUB_BY(ShiftRight, (T)(x[i] >> y))

template <class T> void Duplicate(const LocalTensor<T> &d, T v, uint32_t n) {
  T *z = d.write(n, "Duplicate");
  for (uint32_t i = 0; i < n; ++i) z[i] = v;
}
inline void CreateVecIndex(const LocalTensor<int32_t> &d, int32_t first, uint32_t n) {
  int32_t *z = d.write(n, "CreateVecIndex");
  for (uint32_t i = 0; i < n; ++i) z[i] = first + (int32_t)i;
}

inline float rounded(float x, RoundMode m) {
  switch (m) {
  case RoundMode::CAST_FLOOR: return std::floor(x);
  case RoundMode::CAST_CEIL: return std::ceil(x);
  case RoundMode::CAST_TRUNC: return std::trunc(x);
  case RoundMode::CAST_ROUND: return std::round(x);
  default: return std::nearbyint(x);
  }
}
inline void converted(float x, RoundMode m, float &z) { z = rounded(x, m); }
inline void converted(float x, RoundMode m, int32_t &z) {
  const float r = rounded(x, m);
  if (!(r >= -2147483648.0f && r < 2147483648.0f)) fault("Cast to int32_t of what is out of its range");
  z = (int32_t)r;
}
inline void converted(int32_t x, RoundMode, float &z) { z = (float)x; }
inline void converted(half x, RoundMode, float &z) { z = x; }
inline void converted(bfloat16_t x, RoundMode, float &z) { z = x; }
inline void converted(float x, RoundMode, half &z) { z = half(x); }
inline void converted(float x, RoundMode, bfloat16_t &z) { z = bfloat16_t(x); }
template <class T, class U> void Cast(const LocalTensor<T> &d, const LocalTensor<U> &a, RoundMode m, uint32_t n) {
  const U *x = a.read(n, "Cast");
  T *z = d.write(n, "Cast");
  for (uint32_t i = 0; i < n; ++i) converted(x[i], m, z[i]);
}

inline bool holds(float x, float y, CMPMODE m) {
  switch (m) {
  case CMPMODE::LT: return x < y;
  case CMPMODE::GT: return x > y;
  case CMPMODE::EQ: return x == y;
  case CMPMODE::LE: return x <= y;
  case CMPMODE::GE: return x >= y;
  default: return x != y;
  }
}
inline void repeats(uint32_t n, const char *who) {
  if (n % 64 != 0) fault(std::string(who) + " of other than whole repeats of 256 bytes");
}
inline void Compare(const LocalTensor<uint8_t> &d, const LocalTensor<float> &a, const LocalTensor<float> &b, CMPMODE m, uint32_t n) {
  repeats(n, "Compare");
  const float *x = a.read(n, "Compare"), *y = b.read(n, "Compare");
  uint8_t *z = d.write(n / 8, "Compare");
  for (uint32_t i = 0; i < n; ++i) {
    if (i % 8 == 0) z[i / 8] = 0;
    z[i / 8] = (uint8_t)(z[i / 8] | holds(x[i], y[i], m) << i % 8);
  }
}
inline void Select(const LocalTensor<float> &d, const LocalTensor<uint8_t> &mask, const LocalTensor<float> &a, const LocalTensor<float> &b, SELMODE, uint32_t n) {
  repeats(n, "Select");
  const uint8_t *k = mask.read(n / 8, "Select");
  const float *x = a.read(n, "Select"), *y = b.read(n, "Select");
  float *z = d.write(n, "Select");
  for (uint32_t i = 0; i < n; ++i) std::memcpy(z + i, (k[i / 8] >> i % 8 & 1 ? x : y) + i, 4);
}
} // namespace AscendC

// How the driver calls a kernel: its arguments, 8 bytes each, on one core of several; a text where it fails.
namespace hub_emu {
template <class... A, std::size_t... I>
void spread(void (*f)(A...), const uint64_t *args, std::index_sequence<I...>) {
  f(((A)args[I])...);
}
template <class... A>
const char *call(void (*f)(A...), const uint64_t *args, int64_t index, int64_t count, Global global, void *driver) {
  static thread_local std::string said;
  core().index = index;
  core().count = count;
  core().global = global;
  core().driver = driver;
  try {
    spread(f, args, std::index_sequence_for<A...>{});
    return nullptr;
  } catch (const Fault &e) {
    said = e.what;
    return said.c_str();
  }
}
} // namespace hub_emu
