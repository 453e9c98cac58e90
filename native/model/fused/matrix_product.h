#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

#include "model/fused/pixels.h"

namespace cellcam::model::fused {

// Products of matrices of float32 with AVX2 or AVX-512, where oneDNN and MKL reach two thirds of what the CPU multiplies.

// Where nearly half or more of a left matrix is zero, as behind a ReLU, zeros are left out: what is not finite in the right one counts only where it
// meets another value. CELLCAM_SKIP_ZEROS=0 turns this off.

// Whether this CPU is such a one. CELLCAM_MATRIX_PRODUCT=0 turns them off.
bool multiplies();

// What is multiplied: values as they are, or rounded to integers of 16 bits (integer_loops.h). Sums are float32 in either case, those of integers exact
// for up to 256 values of depth.
enum class Arithmetic { float32, int16 };

// What pixels become as they are read: the first `split` of them by one activation, the others by the other, as two views' norms differ.
struct Activated {
  std::int64_t split;
  Activation of[2];
};

struct AfterProduct {
  const float* bias = nullptr;  // for each column; then an activation follows
  Slope slope = 1;
  bool added = false;  // to what the result holds
};

// c (I, J) = a (I, K) times b (K, J). Of a and b rows or columns lie together (so t() of a matrix is one too), of c rows; J is a multiple of kPanel.
void multiply(const at::Tensor& a, const at::Tensor& b, const at::Tensor& c, const AfterProduct& after = {});

// Several products in one go: threads that are done with one go on with the next. Of deep ones, zeros of the right matrix are left out as well.
// A matrix that is activated has pixels and channels, in either order, channels lying together.
struct MatrixProduct {
  at::Tensor a, b, c;
  const Activated *before_a = nullptr, *before_b = nullptr;
};
void multiply(const std::vector<MatrixProduct>& products, Arithmetic arithmetic = Arithmetic::float32);

// b (K, J) as multiply_packed wants it.
at::Tensor packed(const at::Tensor& b);
void multiply_packed(const at::Tensor& a, const at::Tensor& b, const at::Tensor& c, const AfterProduct& after = {});

}  // namespace cellcam::model::fused
