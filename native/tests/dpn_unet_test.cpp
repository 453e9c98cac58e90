// The segmentation network against PyTorch: a small one of the same classes in float32, the whole one in float64.
#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include "cells/dpn_unet.h"
#include "check.h"
#include "checkpoint/state_dict.h"
#include "error.h"
#include "reference.h"

namespace cellcam::tests {
namespace {

void fill(torch::nn::Module& network, std::uint64_t seed) {
  const at::NoGradGuard no_grad;
  for (auto& [name, tensor] : checkpoint::state_dict(network)) at::Tensor(tensor).copy_(state_tensor(name, seed, tensor));
  network.eval();
}

at::Tensor stains(at::IntArrayRef shape, std::uint64_t seed) {
  const at::Tensor gain = uniforms("input_gain", seed, {shape[0], 3, 8, 8});
  const at::Tensor rows = (at::arange(shape[2]) * 8).floor_divide(shape[2]), columns = (at::arange(shape[3]) * 8).floor_divide(shape[3]);
  return uniforms("input", seed, shape) * gain.index_select(2, rows).index_select(3, columns);
}

at::Tensor normalised(const at::Tensor& stains) {
  const at::Tensor mean = at::tensor({124.0 / 255, 117.0 / 255, 104.0 / 255}, at::kDouble).view({1, 3, 1, 1});
  return ((stains - mean) * (0.0167 * 255)).to(at::kFloat);
}

const Register small("a small DPN U-Net", [] {
  const ReferenceTensors want(reference_path("dpn_unet/wholemodule/tiny_eval.safetensors"));
  cells::DpnUnet network({4, 2, {{{2, 4, 4, 1}, {1, 4, 4, 1}, {1, 4, 5, 1}, {1, 4, 6, 1}}}});
  fill(network, 1);
  const at::NoGradGuard no_grad;
  check_close(network.forward(want("input")), want("logits.ref64"), 1e-5, "logits");
});

const Register whole("the DPN-92 U-Net: 595 tensors, logits to 1e-7 in float64, softmax to 1e-5 in float32", [] {
  const ReferenceTensors want(reference_path("dpn_unet/network/dpn_nuclei_seed1.safetensors"));
  cells::DpnUnet network;
  fill(network, 1);
  const checkpoint::NamedTensors state = checkpoint::state_dict(network);
  check(state.size() == 595, "595 tensors");
  check(state.front().first == "bottlenecks.0.seq.0.weight" && state.back().first == "encoder_stages.4.3.bn.num_batches_tracked",
        "the order of the published files");
  const at::NoGradGuard no_grad;
  for (const at::Tensor& images : {stains({1, 3, 64, 64}, 1), stains({2, 3, 128, 96}, 1)}) {
    const std::string name = images.size(0) == 1 ? "1x3x64x64" : "2x3x128x96";
    const at::Tensor expected = want(name + ".softmax.ref64");
    const at::Tensor got = network.probabilities(images.to(at::kFloat), model::Precision::fp32);
    check((got - expected).abs().max().item<double>() < 1e-5, name + ": softmax in float32");
  }
  network.to(at::kDouble);
  const at::Tensor logits = network.forward(normalised(stains({1, 3, 64, 64}, 1)).to(at::kDouble));
  check_close(logits, want("1x3x64x64.logits.ref64"), 1e-7, "logits in float64");
  for (const std::int64_t side : {48, 33, 30}) {
    bool refused = false;
    try {
      network.forward(at::zeros({1, 3, 64, side}, at::kDouble));
    } catch (const Error&) {
      refused = true;
    }
    check(refused, "a width of " + std::to_string(side) + " is refused");
  }
});

}  // namespace
}  // namespace cellcam::tests
