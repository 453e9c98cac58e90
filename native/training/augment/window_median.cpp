#include "training/augment/window_median.h"

#include <ATen/Functions.h>

#include "model/fused/gpu/kernels.h"
#include "model/fused/gpu/launch.h"
#include "model/switches.h"

namespace cellcam::training::augment {

namespace {

namespace gpu = model::fused::gpu;

at::Tensor by_kernel(gpu::Launcher& launcher, const at::Tensor& images, std::int64_t side) {
  const at::Tensor x = images.contiguous(), y = at::empty_like(x);
  const auto size = [&](int dim) { return static_cast<int>(x.size(dim)); };
  gpu::WindowMedianArguments arguments{size(0), size(1), size(2), size(3), static_cast<int>(side), x.const_data_ptr<std::uint8_t>(),
                                       y.data_ptr<std::uint8_t>()};
  const auto blocks = static_cast<unsigned>((x.numel() + gpu::kThreads - 1) / gpu::kThreads);
  launcher.launch("window_median", at::kHalf, {{blocks}, {gpu::kThreads}}, &arguments);  // the same for each type of other kernels
  return y;
}

// The largest value that more than half of the window reaches, found bit by bit.
at::Tensor by_tensors(const at::Tensor& images, std::int64_t side) {
  const std::int64_t margin = side / 2;
  const at::Tensor planes = images.permute({0, 3, 1, 2}).to(at::kFloat).contiguous();
  const at::Tensor padded = at::replication_pad2d(planes, {margin, margin, margin, margin}).to(at::kByte);
  const at::Tensor windows = padded.unfold(2, side, 1).unfold(3, side, 1);  // (n, C, H, W, side, side), a view
  at::Tensor found = at::zeros({images.size(0), images.size(3), images.size(1), images.size(2)}, images.options());
  for (std::int64_t bit = 128; bit > 0; bit /= 2) {
    const at::Tensor higher = found.add(bit);
    const at::Tensor reach = windows.ge(higher.unsqueeze(-1).unsqueeze(-1)).sum(at::IntArrayRef{4, 5}, false, at::kInt);
    found = at::where(reach.gt(side * side / 2), higher, found);
  }
  return found.permute({0, 2, 3, 1});
}

}  // namespace

at::Tensor window_median(const at::Tensor& images, std::int64_t side) {
  static const bool on = model::switched_on("CELLCAM_FUSED_MEDIAN");
  gpu::Launcher* const launcher = on ? gpu::launcher(images.device()) : nullptr;
  return launcher != nullptr ? by_kernel(*launcher, images, side) : by_tensors(images, side);
}

}  // namespace cellcam::training::augment
