// Vectors of float32 for loops that are compiled for AVX-512 (vector.h).

constexpr int kLanes = 16;

struct Vector {
  __m512 v;
  static Vector load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static Vector all(float value) { return {_mm512_set1_ps(value)}; }
  static Vector zero() { return {_mm512_setzero_ps()}; }
  void store(float* p) const { _mm512_storeu_ps(p, v); }
};
inline Vector operator+(Vector x, Vector y) { return {_mm512_add_ps(x.v, y.v)}; }
inline Vector operator-(Vector x, Vector y) { return {_mm512_sub_ps(x.v, y.v)}; }
inline Vector operator*(Vector x, Vector y) { return {_mm512_mul_ps(x.v, y.v)}; }
inline Vector add(Vector x, Vector y, Vector z) { return {_mm512_fmadd_ps(x.v, y.v, z.v)}; }  // x y + z
// x, or slope x, by the sign of x.
inline Vector act(Vector x, Vector slope) { return {_mm512_mask_mul_ps(x.v, _mm512_movepi32_mask(_mm512_castps_si512(x.v)), x.v, slope.v)}; }

#include "model/fused/vectors/vector.h"
