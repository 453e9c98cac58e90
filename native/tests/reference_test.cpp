// The network against tensors that PyTorch and timm computed: blocks in float32, whole models in float64.
#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>

#include <regex>

#include "check.h"
#include "checkpoint/state_dict.h"
#include "model/backbones/layers.h"
#include "model/combo_loss.h"
#include "model/puzzle_cam.h"
#include "model/tiles.h"
#include "reference.h"
#include "training/adam.h"

namespace cellcam::tests {
namespace {

constexpr std::int64_t kSeed = 1;

void fill(torch::nn::Module& model) {
  const at::NoGradGuard no_grad;
  for (auto& [name, tensor] : checkpoint::state_dict(model)) at::Tensor(tensor).copy_(state_tensor(name, kSeed, tensor));
}

at::Tensor signed_uniforms(const std::string& key, at::IntArrayRef shape) {
  return (2 * uniforms(key, kSeed, shape) - 1).to(at::kFloat);
}

const Register tile_cases("tiles are those of the reference, exactly", [] {
  const ReferenceTensors want(reference_path("tiles/tiles.safetensors"));
  for (const auto& [name, side] : std::vector<std::pair<std::string, int>>{{"p4_b2", 2}, {"p16_b2", 4}, {"p1", 1}, {"p4_b1", 2}}) {
    const at::Tensor tiles = model::cut_tiles(want(name + ".x"), side);
    check(at::equal(tiles, want(name + ".tiles")), name + ": tiles");
    check(at::equal(model::merge_tiles(tiles, side), want(name + ".merged")), name + ": merged");
  }
});

struct BlockCase {
  std::string name, backbone, path;
  std::vector<std::int64_t> input;
};

const std::vector<BlockCase>& block_cases() {
  static const std::vector<BlockCase> all = {
      {"seresnext_down", "seresnext50_32x4d", "cnn1.mfeatures.layer2.0", {3, 256, 8, 8}},
      {"resnet_basic", "resnet18", "cnn1.mfeatures.layer2.0", {3, 64, 8, 8}},
      {"csp_stage", "cspresnext50", "cnn1.mfeatures.stages.1", {3, 256, 8, 8}},
      {"regnet_down", "regnety_064", "cnn1.mfeatures.s1.b1", {3, 32, 8, 8}},
  };
  return all;
}

void check_block(const BlockCase& c, const ReferenceTensors& want) {
  model::PuzzleCam model(c.backbone, 19, 4);
  fill(model);
  model.train();
  const auto block = std::dynamic_pointer_cast<model::Layer>(model.named_modules("", /*include_self=*/false)[c.path]);
  check(block != nullptr, c.path + " is no layer");
  const at::Tensor x = signed_uniforms("block_input:" + c.name, c.input).requires_grad_(true);
  const at::Tensor y = block->forward(model::Views(x)).whole;
  check_close(y, want(c.name + ".y"), 1e-5, c.name + ".y");
  y.backward(signed_uniforms("block_grad:" + c.name, y.sizes()));
  check_close(x.grad(), want(c.name + ".dx"), 1e-5, c.name + ".dx");
  const auto parameters = block->named_parameters();
  const auto buffers = block->named_buffers();
  for (const std::string& key : want.names()) {
    const std::string grad = c.name + ".grad.", after = c.name + ".after.";
    if (key.rfind(grad, 0) == 0) check_close(parameters[key.substr(grad.size())].grad(), want(key), 1e-5, key);
    if (key.rfind(after, 0) == 0) check_close(buffers[key.substr(after.size())], want(key), 1e-5, key);
  }
}

const Register blocks("blocks in training: outputs, gradients and running statistics", [] {
  const ReferenceTensors want(reference_path("models/blocks.safetensors"));
  for (const BlockCase& c : block_cases()) check_block(c, want);
});

// A whole model in float64 against the float64 run of the reference, whose results were rounded to float32.
constexpr double kExact = 1e-6;

struct ModelCase {
  explicit ModelCase(const std::string& backbone)
      : json(read_text(reference_path("models/" + backbone + "_seed1.json"))),
        want(reference_path("models/" + backbone + "_seed1.safetensors")),
        evalgrad(reference_path("models/" + backbone + "_seed1_evalgrad.safetensors")),
        model(backbone, 19, 4) {
    fill(model);
    model.to(at::kDouble);
  }

  at::Tensor images(const std::string& kind, std::uint64_t seed) const {
    std::smatch found;
    check(std::regex_search(json, found, std::regex("\"" + kind + R"re(_input_shape":\s*\[([^\]]*)\])re")), "no input shape");
    std::vector<std::int64_t> shape;
    std::stringstream list(found[1]);
    for (std::string n; std::getline(list, n, ',');) shape.push_back(std::stoll(n));
    return input_images(shape, seed).to(at::kDouble);
  }

  double loss(const std::string& combo) const {
    const auto at = json.find("\"loss_ref64\"", json.find("\"" + combo + "\""));
    std::smatch found;
    const std::string part = json.substr(at, 300);
    check(std::regex_search(part, found, std::regex(R"re("loss":\s*([-+\d.e]+))re")), "no loss of " + combo);
    return std::stod(found[1]);
  }

  void check_outputs(const model::PuzzleOutput& got, const std::string& kind, const ReferenceTensors& from) {
    check_close(got.logits, from(kind + "single_logits.ref64"), kExact, kind + "single_logits");
    check_close(got.maps, from(kind + "single_features.ref64"), kExact, kind + "single_features");
    check_close(got.tiled_logits, from(kind + "tiled_logits.ref64"), kExact, kind + "tiled_logits");
    check_close(got.tiled_maps, from(kind + "tiled_features.ref64"), kExact, kind + "tiled_features");
  }

  void check_gradients(const std::string& prefix, const ReferenceTensors& from) {
    const auto parameters = model.named_parameters();
    for (const std::string& key : from.names()) {
      if (key.rfind(prefix, 0) != 0 || key.size() < 6 || key.substr(key.size() - 6) != ".ref64") continue;
      const at::Tensor expected = from(key);
      at::Tensor got = parameters[key.substr(prefix.size(), key.size() - prefix.size() - 6)].grad();
      if (got.sizes() != expected.sizes()) got = got.narrow(1, 0, expected.size(1));  // the first input channels only
      check_close(got, expected, kExact, key);
    }
  }

  // Forward and backward from the reference's weights; gradients stay in the parameters.
  model::PuzzleOutput study(bool train, const model::ComboLossOptions& options, double* total) {
    model.train(train);
    model.zero_grad();
    const model::PuzzleOutput out = model.forward(images("train", kSeed + 1000), true);
    const at::Tensor loss = model::combo_loss(out, want("train.target").to(at::kDouble), options).total;
    loss.backward();
    *total = loss.item<double>();
    return out;
  }

  void check_training() {
    double total = 0;
    const model::PuzzleOutput out = study(true, {1, 1, 0.5}, &total);
    check_near(total, loss("a1.0_b1.0_g0.5"), kExact, "loss");
    check_outputs(out, "train.", want);
    check_gradients("train.a1.0_b1.0_g0.5.grad.", want);
    checkpoint::NamedTensors named;
    for (const auto& p : model.named_parameters()) named.emplace_back(p.key(), p.value());
    training::Adam(named, {}).step(at::scalar_tensor(3e-4, at::kDouble));
    const auto parameters = model.named_parameters();
    for (const std::string& key : want.names()) {
      if (key.rfind("adam.", 0) != 0 || key.find(".ref64") == std::string::npos) continue;
      check_close(parameters[key.substr(5, key.size() - 11)], want(key), kExact, key);
    }
  }

  std::string json;
  ReferenceTensors want, evalgrad;
  model::PuzzleCam model;
};

const Register models("every backbone in float64: outputs, losses, gradients and an Adam step to 1e-6", [] {
  for (const model::BackboneInfo& info : model::backbones()) {
    ModelCase c(info.name);
    try {
      c.model.eval();
      {
        const at::NoGradGuard no_grad;
        c.check_outputs(c.model.forward(c.images("eval", kSeed), true), "eval.", c.want);
      }
      double total = 0;
      const model::PuzzleOutput out = c.study(false, {1, 1, 0.5}, &total);
      c.check_gradients("grad.", c.evalgrad);
      check_close(out.maps, c.evalgrad("single_features.ref64"), kExact, "evalgrad single_features");
      c.check_training();
    } catch (const std::exception& e) {
      throw std::runtime_error(info.name + ": " + e.what());
    }
  }
});

}  // namespace
}  // namespace cellcam::tests
