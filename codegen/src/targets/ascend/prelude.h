// What the kernels below share. Element types in global memory need no alignment but their own:
// copies are padded ones, of any number of bytes.
#include "kernel_operator.h"
using namespace AscendC;

// A core's unified memory: what comes in, what goes out, registers, scratch.
struct HubRoom {
  TPipe pipe;
  TQue<TPosition::VECIN, 2> in;
  TQue<TPosition::VECOUT, 2> out;
  TBuf<TPosition::VECCALC> regs;
  TBuf<TPosition::VECCALC> scratch;
};

__aicore__ inline float HubFloat(uint32_t b) { return *reinterpret_cast<float *>(&b); }
__aicore__ inline uint32_t HubBits(float f) { return *reinterpret_cast<uint32_t *>(&f); }

template <class T> __aicore__ inline T HubInt(float a, float edge) {
  if (a != a) return 0;
  if (a >= edge) return (T)(sizeof(T) == 4 ? 0x7FFFFFFF : 0x7FFFFFFFFFFFFFFF);
  if (a < -edge) return (T)(sizeof(T) == 4 ? (int64_t)-2147483647 - 1 : -0x7FFFFFFFFFFFFFFF - 1);
  return (T)a;
}
__aicore__ inline float HubTrunc(float a) {
  return a > -8388608.0f && a < 8388608.0f ? HubFloat(HubBits((float)(int32_t)a) | (HubBits(a) & 0x80000000u)) : a;
}
__aicore__ inline float HubFloor(float a) { float t = HubTrunc(a); return t > a ? t - 1.0f : t; }
__aicore__ inline float HubRint(float a) {
  float f = HubFloor(a), d = a - f;
  if (d > 0.5f || (d == 0.5f && HubTrunc(f * 0.5f) * 2.0f != f)) f = f + 1.0f;
  return HubFloat((HubBits(f) & 0x7FFFFFFFu) | (HubBits(a) & 0x80000000u));
}
// To nearest; the least integer for what is out of range or no number.
template <class T> __aicore__ inline T HubNear(float a) {
  const float r = HubRint(a), edge = sizeof(T) == 4 ? 2147483648.0f : 9223372036854775808.0f;
  return r >= -edge && r < edge ? (T)r : (T)(sizeof(T) == 4 ? (int64_t)-2147483647 - 1 : -0x7FFFFFFFFFFFFFFF - 1);
}
template <class T, class U> __aicore__ inline T HubDiv(T a, T b) {
  return b == 0 ? 0 : b == -1 ? (T)(0 - (U)a) : a / b;
}
template <class T> __aicore__ inline T HubRem(T a, T b) { return b == 0 || b == -1 ? 0 : a % b; }

template <class T> __aicore__ inline GlobalTensor<T> HubGlobal(GM_ADDR at, uint32_t n) {
  GlobalTensor<T> g;
  g.SetGlobalBuffer((__gm__ T *)at, n);
  return g;
}

// One element of global memory, for the scalar unit.
template <class T> __aicore__ inline T HubPeek(GM_ADDR at) { return HubGlobal<T>(at, 1).GetValue(0); }
__aicore__ inline float HubPeekBf16(GM_ADDR at) { return HubFloat((uint32_t)HubPeek<uint16_t>(at) << 16); }

// n elements of global memory; to be given back to the queue.
template <class T> __aicore__ inline LocalTensor<T> HubTake(HubRoom &r, GM_ADDR at, uint32_t n) {
  LocalTensor<T> t = r.in.AllocTensor<T>();
  DataCopyExtParams how{1, (uint32_t)(n * sizeof(T)), 0, 0, 0};
  DataCopyPadExtParams<T> pad{false, 0, 0, T()};
  DataCopyPad(t, HubGlobal<T>(at, n), how, pad);
  r.in.EnQue(t);
  return r.in.DeQue<T>();
}

// n elements to global memory, of a tensor that came from the queue.
template <class T> __aicore__ inline void HubGive(HubRoom &r, GM_ADDR at, LocalTensor<T> t, uint32_t n) {
  r.out.EnQue(t);
  t = r.out.DeQue<T>();
  DataCopyExtParams how{1, (uint32_t)(n * sizeof(T)), 0, 0, 0};
  DataCopyPad(HubGlobal<T>(at, n), t, how);
  r.out.FreeTensor(t);
}

// One element to global memory.
template <class T> __aicore__ inline void HubPoke(HubRoom &r, GM_ADDR at, T x) {
  LocalTensor<T> t = r.out.AllocTensor<T>();
  PipeBarrier<PIPE_ALL>();
  t.SetValue(0, x);
  PipeBarrier<PIPE_ALL>();
  HubGive(r, at, t, 1);
}
__aicore__ inline uint16_t HubToBf16(float x) {
  const uint32_t b = HubBits(x), rounded = (b + 0x7FFFu + (b >> 16 & 1u)) >> 16;
  return (uint16_t)(x != x ? b >> 16 | 64u : rounded);
}

// Elements of scratch, by bytes from its start.
template <class T> __aicore__ inline T HubLook(LocalTensor<uint8_t> s, int64_t at) {
  return s.ReinterpretCast<T>().GetValue(at / sizeof(T));
}
template <class T> __aicore__ inline void HubPut(LocalTensor<uint8_t> s, int64_t at, T x) {
  s.ReinterpretCast<T>().SetValue(at / sizeof(T), x);
}

// Masks: a bit a lane, in the first 8 bytes of a tensor.
__aicore__ inline uint64_t HubMask(LocalTensor<uint8_t> m) { return m.ReinterpretCast<uint64_t>().GetValue(0); }
__aicore__ inline void HubSetMask(LocalTensor<uint8_t> m, uint64_t bits) {
  m.ReinterpretCast<uint64_t>().SetValue(0, bits);
}
__aicore__ inline uint64_t HubFirst(int64_t n) { return n >= 64 ? ~0ull : (1ull << n) - 1; }
__aicore__ inline int64_t HubWithin(int64_t n, int64_t most) { return n < 0 ? 0 : n > most ? most : n; }
