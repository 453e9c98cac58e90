#pragma once
#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "generated.h"

namespace cellcam::tests {

// Path of a reference case; throws Skipped where the folder of reference cases ($CELLCAM_SHARED/goldens) is not there.
std::string reference_path(const std::string& name);

// A file's text.
std::string read_text(const std::string& path);

// The float32 tensors of a safetensors file.
class ReferenceTensors {
 public:
  explicit ReferenceTensors(const std::string& path);
  at::Tensor operator()(const std::string& name) const;  // throws std::runtime_error if there is none
  const std::vector<std::string>& names() const { return names_; }

 private:
  std::string file_;
  std::vector<std::string> names_;
};

// Relative L2 distance in double.
double distance(const at::Tensor& got, const at::Tensor& want);
void check_close(const at::Tensor& got, const at::Tensor& want, double tolerance, const std::string& what);

}  // namespace cellcam::tests
