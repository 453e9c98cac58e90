#include <ATen/Functions.h>

#include <cmath>
#include <limits>
#include <thread>

#include "check.h"
#include "error.h"
#include "generated.h"
#include "model/switches.h"
#include "reference.h"
#include "training/adam.h"
#include "training/batch_queue.h"
#include "training/grad_scaler.h"

namespace cellcam::tests {
namespace {

using training::BatchQueue;
using training::GradScaler;

// '.' finite gradients, 'i' an infinite one, 'n' a NaN.
void feed(GradScaler& scaler, const std::string& pattern) {
  for (const char kind : pattern) {
    const float value = kind == 'i' ? std::numeric_limits<float>::infinity() : kind == 'n' ? std::nanf("") : 1.0f;
    std::vector<at::Tensor> gradients{at::full({3}, value)};
    scaler.update(scaler.found_inf(gradients));
  }
}

const Register scaler_steps("the loss scale halves on overflow and doubles after the interval", [] {
  GradScaler scaler(at::kCPU, {65536.0, 2.0, 0.5, 3});
  feed(scaler, "...");
  check_near(scaler.state().scale, 131072.0, 0, "after three finite steps");
  feed(scaler, "i..");
  check_near(scaler.state().scale, 65536.0, 0, "after an infinite one");
  feed(scaler, "n");
  check_near(scaler.state().scale, 32768.0, 0, "after a NaN");
});

const Register adam_steps("three Adam steps equal the formula in double", [] {
  at::Tensor p = at::tensor({0.5, -1.0, 2.0}, at::kFloat).requires_grad_(true);
  training::Adam adam({{"p", p}}, {});
  std::vector<double> value{0.5, -1.0, 2.0}, m(3), v(3);
  for (int t = 1; t <= 3; ++t) {
    const at::Tensor g = at::tensor({0.1 * t, -0.2, 0.3 * t * t}, at::kFloat);
    p.mutable_grad() = g;
    adam.step(at::scalar_tensor(3e-4, at::kDouble));
    for (int i = 0; i < 3; ++i) {
      const double gi = g[i].item<double>();
      m[i] = 0.9 * m[i] + 0.1 * gi;
      v[i] = 0.999 * v[i] + 0.001 * gi * gi;
      value[i] -= 3e-4 * (m[i] / (1 - std::pow(0.9, t))) / (std::sqrt(v[i] / (1 - std::pow(0.999, t))) + 1e-8);
      check_near(p[i].item<double>(), value[i], 1e-6, "parameter after a step");
    }
  }
});

const Register adam_orders("Adam steps take parameters, gradients and moments of different orders in memory", [] {
  const at::Tensor value = at::randn({4, 3, 3, 3}), g = at::randn({4, 3, 3, 3});
  const auto stepped = [&](at::MemoryFormat of_parameter, at::MemoryFormat of_gradient, at::MemoryFormat later) {
    at::Tensor p = value.clone(of_parameter).requires_grad_(true);
    training::Adam adam({{"p", p}}, {});
    for (int i = 0; i < 2; ++i) {
      p.mutable_grad() = (g + i).contiguous(of_gradient);
      adam.step(at::scalar_tensor(1e-2, at::kDouble));
      p.set_data(p.detach().contiguous(later));
    }
    return p.detach().contiguous();
  };
  constexpr auto kNchw = at::MemoryFormat::Contiguous, kNhwc = at::MemoryFormat::ChannelsLast;
  const at::Tensor expected = stepped(kNchw, kNchw, kNchw);
  for (const auto of_parameter : {kNchw, kNhwc}) {
    for (const auto of_gradient : {kNchw, kNhwc}) {
      for (const auto later : {kNchw, kNhwc}) check_close(stepped(of_parameter, of_gradient, later), expected, 1e-7, "steps in another order");
    }
  }
});

const Register skipped_step("a step with infinite gradients changes nothing", [] {
  at::Tensor p = at::ones({4}).requires_grad_(true);
  training::Adam adam({{"p", p}}, {});
  p.mutable_grad() = at::full({4}, std::numeric_limits<float>::infinity());
  adam.step(at::scalar_tensor(1e-3, at::kDouble), training::Adam::Scaled{at::full({1}, 2.0f), at::ones({1})});
  check(at::equal(p.detach(), at::ones({4})), "the parameter moved");
  check_near(adam.state().back().second.item<double>(), 0, 0, "steps counted");
});

const Register groups("groups have rates of their own and frozen parameters stand still", [] {
  at::Tensor a = at::zeros({1}).requires_grad_(true), b = at::zeros({1}).requires_grad_(true), c = at::zeros({1}).requires_grad_(true);
  training::Adam adam({{"head.a", a}, {"body.b", b}, {"body.c", c}}, {0.9, 0.999, 1e-8, {{"head.", 10}}});
  c.set_requires_grad(false);
  for (at::Tensor* p : {&a, &b}) p->mutable_grad() = at::ones({1});
  adam.step(at::scalar_tensor(1e-3, at::kDouble));
  check_near(a.item<double>(), -1e-2, 1e-6, "the head's step");
  check_near(b.item<double>(), -1e-3, 1e-6, "the body's step");
  check(at::equal(c.detach(), at::zeros({1})), "a frozen parameter moved");
  check(at::equal(adam.state().back().second, at::tensor({1.0f, 1.0f, 0.0f})), "steps");
});

// Once no step is under way, a gradient stays where it is.
void check_unhooked(at::Tensor parameter) {
  parameter.mutable_grad() = at::Tensor();
  parameter.sum().backward();
  check(parameter.grad().defined(), "the gradient was taken behind the step");
}

const Register early_steps("parameters that take their step as soon as their gradient is there end up where others do", [] {
  constexpr std::int64_t kLarge = 40000;
  const auto leaf = [](const std::string& key, at::IntArrayRef sizes) { return uniforms(key, 1, sizes).requires_grad_(true); };
  const auto train = [&](bool early) {
    at::Tensor head = leaf("head", {kLarge});
    at::Tensor body = leaf("body", {8, kLarge / 32, 2, 2}).detach().contiguous(at::MemoryFormat::ChannelsLast).requires_grad_(true);
    at::Tensor small = leaf("small", {3}), frozen = leaf("frozen", {kLarge}).set_requires_grad(false);
    training::Adam adam({{"head.h", head}, {"b", body}, {"s", small}, {"f", frozen}}, {0.9, 0.999, 1e-8, {{"head.", 10}}});
    for (int t = 1; t <= 3; ++t) {
      const at::Tensor rate = at::scalar_tensor(1e-2 / t, at::kDouble), x = uniforms("x", t, {kLarge}) - .5;
      // `head` is read twice: its step waits for both gradients.
      const auto loss = [&] { return (head * x).sum() * small.sum() + (head * body.reshape({-1}).narrow(0, 0, kLarge)).sin().sum() + (frozen * head).sum(); };
      adam.zero_grad();
      if (early) {
        const training::Adam::Early steps(adam, rate);
        loss().backward();
        check(!head.grad().defined() && !body.grad().defined() && small.grad().defined(), "gradients that are left");
      } else {
        loss().backward();
      }
      adam.step(rate);
    }
    check_unhooked(head);
    std::vector<at::Tensor> out{head.detach(), body.detach(), small.detach(), frozen.detach()};
    for (const auto& [name, value] : adam.state()) out.push_back(value);
    return out;
  };
  if (!model::switched_on("CELLCAM_EARLY_STEPS")) throw Skipped("CELLCAM_EARLY_STEPS=0");
  const std::vector<at::Tensor> early = train(true), all_at_once = train(false);
  for (std::size_t i = 0; i < early.size(); ++i) check(at::equal(early[i], all_at_once[i]), "value " + std::to_string(i) + " differs");
});

const Register in_order("batches arrive in order whatever the number of loader threads", [] {
  std::vector<std::uint8_t> ring(4 * 8);
  BatchQueue queue(ring.data(), 4, 8, 0, 100);
  std::vector<std::thread> loaders;
  for (int i = 0; i < 3; ++i) {
    loaders.emplace_back([&queue] {
      for (;;) {
        const auto got = queue.acquire(10);
        if (got.finished) return;
        if (!got.lease) continue;
        queue.slot(*got.lease)[0] = static_cast<std::uint8_t>(got.lease->batch);
        queue.publish(*got.lease);
      }
    });
  }
  std::int64_t expected = 0;
  while (const auto lease = queue.take()) {
    const bool right = lease->batch == expected && queue.slot(*lease)[0] == expected;
    queue.release(*lease);
    if (!right) queue.close();
    ++expected;
  }
  for (auto& loader : loaders) loader.join();
  check(expected == 100, "batch " + std::to_string(expected) + " came out of order");
});

const Register written("a closed queue tells of slots that are still written", [] {
  std::vector<std::uint8_t> ring(16);
  BatchQueue queue(ring.data(), 2, 8, 0, 5);
  const auto first = queue.acquire(0), second = queue.acquire(0);
  queue.publish(*second.lease);
  queue.close();
  check(queue.acquire(0).finished && queue.filling() == 1, "one is being written");
  queue.publish(*first.lease);
  check(queue.filling() == 0, "none is being written any more");
});

const Register failure_ends("a loader's error reaches the consumer, once and with its code", [] {
  std::vector<std::uint8_t> ring(8);
  BatchQueue queue(ring.data(), 1, 8, 0, 5);
  queue.fail(std::make_exception_ptr(Error("ERR_HDF5", "broken")));
  try {
    queue.take();
  } catch (const Error& e) {
    return check(e.code() == "ERR_HDF5", "another code");
  }
  check(false, "no error");
});

}  // namespace
}  // namespace cellcam::tests
