#pragma once
#include <cstdint>

namespace cellcam::model::fused {

// Loops over the pixels of NHWC tensors: `rows` pixels of `channels` values each, which lie one after the other. One set for each
// type of values; per-channel arrays are float32.
struct bf16 {
  std::uint16_t bits;
};

// What is to become of a value v: v where v > 0, else slope * v. 1: nothing, 0: ReLU.
using Slope = float;

// What made an output of x: act(x * scale + shift), both (channels).
struct Activation {
  const float *scale, *shift;
  Slope slope;
};

// Gradients of a row of outputs of a max pooling, which of the nine values that each sees is the largest, and the row among the three, 0 to 2, that is
// asked about. Null for none.
template <typename T>
struct PooledRow {
  const T* dy = nullptr;
  const std::uint8_t* which = nullptr;
  int row = 0;
};

template <typename T>
struct RowKernels {
  // sum[c] += x - centre[c] and squares[c] += (x - centre[c])^2.
  void (*moments)(const T* x, std::int64_t rows, std::int64_t channels, const float* centre, float* sum, float* squares);

  // y = act(x * scale[c] + shift[c] + residual); `residual` may be null. y may be x or residual.
  void (*apply)(const T* x, const T* residual, std::int64_t rows, std::int64_t channels, const float* scale, const float* shift,
                Slope slope, T* y);

  // With g = dy where x * scale[c] + shift[c] > 0, else slope * dy: sum[c] += g and products[c] += g * (x - centre[c]).
  void (*gradient_moments)(const T* dy, const T* x, std::int64_t rows, std::int64_t channels, const float* centre, const float* scale,
                           const float* shift, Slope slope, float* sum, float* products);

  // dx = g * a[c] + x * b[c] + c0[c] with that g. dx may be dy.
  void (*gradient)(const T* dy, const T* x, std::int64_t rows, std::int64_t channels, const float* scale, const float* shift, Slope slope,
                   const float* a, const float* b, const float* c0, T* dx);

  // The same two where y, of which the sign is asked, holds something else too; g, of dy + again, is written by the first. `again` may be null.
  void (*added_gradient_moments)(const T* dy, const T* again, const T* y, const T* x, std::int64_t rows, std::int64_t channels, const float* centre,
                                 Slope slope, T* g, float* sum, float* products);
  void (*added_gradient)(const T* g, const T* x, std::int64_t rows, std::int64_t channels, const float* a, const float* b, const float* c0, T* dx);

  // A row of `width` outputs of a max pooling of 3x3 values around every second one: `x` are the three rows that it sees, null outside of the image,
  // of `in` pixels. `which` takes the number of each largest value among the nine, the first of equal ones; it may be null. NaN is the largest.
  void (*max_pool)(const T* const (&x)[3], std::int64_t in, std::int64_t width, std::int64_t channels, T* y, std::uint8_t* which);

  // A row of `in` gradients of its input, from those of the one or two rows of `width` outputs that see it, and where among what they see it lies.
  void (*max_pool_gradient)(const PooledRow<T> (&seen_by)[2], std::int64_t in, std::int64_t width, std::int64_t channels, T* dx);
};

// For this CPU.
const RowKernels<float>& row_kernels(float);
const RowKernels<bf16>& row_kernels(bf16);

}  // namespace cellcam::model::fused
