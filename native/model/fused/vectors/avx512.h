// Vectors of float32 for loops that are compiled for AVX-512 (vector.h).

constexpr int kLanes = 16;

struct Vector {
  __m512 v;
  static Vector load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static Vector all(float value) { return {_mm512_set1_ps(value)}; }
  // The n values that are there, again and again.
  template <int n>
  static Vector repeat(const float* p) {
    static_assert(n == 1 || n == 2 || n == 4);
    if constexpr (n == 4) return {_mm512_maskz_broadcast_f32x4(0xffff, _mm_loadu_ps(p))};
    if constexpr (n == 1) return {_mm512_set1_ps(*p)};
    double two;
    __builtin_memcpy(&two, p, sizeof two);
    return {_mm512_castpd_ps(_mm512_set1_pd(two))};
  }
  static Vector zero() { return {_mm512_setzero_ps()}; }
  // The lanes with these numbers.
  Vector at(const std::int32_t (&lanes)[kLanes]) const { return {_mm512_maskz_permutexvar_ps(0xffff, _mm512_loadu_si512(lanes), v)}; }
  void store(float* p) const { _mm512_storeu_ps(p, v); }
};
inline Vector operator+(Vector x, Vector y) { return {_mm512_add_ps(x.v, y.v)}; }
inline Vector operator-(Vector x, Vector y) { return {_mm512_sub_ps(x.v, y.v)}; }
inline Vector operator*(Vector x, Vector y) { return {_mm512_mul_ps(x.v, y.v)}; }
inline Vector add(Vector x, Vector y, Vector z) { return {_mm512_fmadd_ps(x.v, y.v, z.v)}; }  // x y + z
// x, or slope x, by the sign of x.
inline Vector act(Vector x, Vector slope) { return {_mm512_mask_mul_ps(x.v, _mm512_movepi32_mask(_mm512_castps_si512(x.v)), x.v, slope.v)}; }

#include "model/fused/vectors/vector.h"
