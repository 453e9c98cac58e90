#include <ATen/Functions.h>

#include "check.h"
#include "checkpoint/init.h"
#include "error.h"
#include "model/combo_loss.h"
#include "model/puzzle_cam.h"
#include "model/tiles.h"

namespace cellcam::tests {
namespace {

const Register tiles("merging undoes cutting, tile-major", [] {
  const at::Tensor x = at::arange(2 * 3 * 4 * 6, at::kFloat).reshape({2, 3, 4, 6});
  const at::Tensor cut = model::cut_tiles(x);
  check(at::equal(cut.narrow(0, 2, 2), x.slice(2, 0, 2).slice(3, 3, 6)), "piece 1 is not the top right of all images");
  check(at::equal(model::merge_tiles(cut), x), "merged differs");
});

const Register odd_tiles("an odd size is refused", [] {
  try {
    model::cut_tiles(at::zeros({1, 1, 5, 4}));
  } catch (const Error& e) {
    return check(e.code() == "ERR_INVALID_ARG", "another code");
  }
  check(false, "no error");
});

// A directional derivative in double against central differences.
const Register gradient("the loss's gradient equals central differences", [] {
  const auto f64 = at::TensorOptions(at::kDouble);
  const model::PuzzleOutput at_point{at::randn({2, 3}, f64), at::randn({2, 3, 2, 2}, f64), at::randn({2, 3}, f64),
                                     at::randn({2, 3, 2, 2}, f64)};
  const at::Tensor targets = at::randint(0, 2, {2, 3}, f64), direction = at::randn({2, 3, 2, 2}, f64);
  const auto loss_at = [&](double t) {
    model::PuzzleOutput moved = at_point;
    moved.maps = at_point.maps + t * direction;
    return model::combo_loss(moved, targets, {}).total.item<double>();
  };
  model::PuzzleOutput output = at_point;
  output.maps = at_point.maps.clone().requires_grad_(true);
  model::combo_loss(output, targets, {}).total.backward();
  const double slope = (output.maps.grad() * direction).sum().item<double>();
  check_near(slope, (loss_at(1e-6) - loss_at(-1e-6)) / 2e-6, 1e-6, "slope");
});

const Register init("weights depend on seed and name only", [] {
  model::PuzzleCam a("resnet18", 19, 4), b("resnet18", 7, 4);
  checkpoint::initialise(a, 5);
  checkpoint::initialise(b, 5);
  const auto first = [](model::PuzzleCam& m) { return m.parameters().front().detach().clone(); };
  check(at::equal(first(a), first(b)), "the stem differs");
  checkpoint::initialise(b, 6);
  check(!at::equal(first(a), first(b)), "another seed gives the same stem");
});

}  // namespace
}  // namespace cellcam::tests
