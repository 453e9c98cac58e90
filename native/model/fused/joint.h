#pragma once
#include "model/views.h"

namespace cellcam::model::fused {

// Memory that both views share, one behind the other: what is done to every pixel alike, such as a 1x1 convolution, is then one operation.

// NHWC tensors like these.
Views joint_like(const Views& x);

// The same for outputs of a convolution with "same" padding.
Views joint_outputs(const Views& x, std::int64_t channels, std::int64_t stride = 1);

// All pixels of one view or of both, (pixels, channels): a view where they lie in one memory, else a copy.
at::Tensor joint_rows(const Views& x);

// The one view or both, of the sizes of `shape`, that such rows stand for; channels are the rows' own.
Views from_rows(const at::Tensor& rows, const Views& shape);

// Whether joint_conv takes these: two NHWC views of float32 or bfloat16 on the CPU. CELLCAM_JOINT_CONV=0 turns it off.
bool joins(const Views& x);

// A 1x1 convolution of both views at once: weights are read once, and their gradients summed where they are computed.
Views joint_conv(const Views& x, const at::Tensor& weight);

// Whether joint_spatial_conv takes these: as joint_conv's, in bfloat16 (with AVX2 or AVX-512 in float32 too), with many weights and fewer pixels than
// output channels.
bool joins_spatially(const Views& x, const at::Tensor& weight, std::int64_t stride, std::int64_t groups);

// A convolution of both views as one matrix product of what the kernel sees at each pixel, and so its weight's gradient, which lies in
// memory as the weight does: oneDNN's convolution would bring both into its own order and back for each view, element by element.
Views joint_spatial_conv(const Views& x, const at::Tensor& weight, std::int64_t stride, std::int64_t padding);

}  // namespace cellcam::model::fused
