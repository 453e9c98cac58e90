// Vectors of float32 for loops that are compiled for AVX2 (vector.h).

constexpr int kLanes = 8;

struct Vector {
  __m256 v;
  static Vector load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static Vector all(float value) { return {_mm256_set1_ps(value)}; }
  // The n values that are there, again and again.
  template <int n>
  static Vector repeat(const float* p) {
    static_assert(n == 1 || n == 2);
    if constexpr (n == 1) return {_mm256_broadcast_ss(p)};
    double two;
    __builtin_memcpy(&two, p, sizeof two);
    return {_mm256_castpd_ps(_mm256_set1_pd(two))};
  }
  static Vector zero() { return {_mm256_setzero_ps()}; }
  // The lanes with these numbers.
  Vector at(const std::int32_t (&lanes)[kLanes]) const {
    return {_mm256_permutevar8x32_ps(v, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(lanes)))};
  }
  void store(float* p) const { _mm256_storeu_ps(p, v); }
};
inline Vector operator+(Vector x, Vector y) { return {_mm256_add_ps(x.v, y.v)}; }
inline Vector operator-(Vector x, Vector y) { return {_mm256_sub_ps(x.v, y.v)}; }
inline Vector operator*(Vector x, Vector y) { return {_mm256_mul_ps(x.v, y.v)}; }
inline Vector add(Vector x, Vector y, Vector z) { return {_mm256_fmadd_ps(x.v, y.v, z.v)}; }  // x y + z
// x, or slope x, by the sign of x.
inline Vector act(Vector x, Vector slope) { return {_mm256_blendv_ps(x.v, _mm256_mul_ps(x.v, slope.v), x.v)}; }

#include "model/fused/vectors/vector.h"
