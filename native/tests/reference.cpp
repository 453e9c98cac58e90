#include "reference.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <regex>
#include <sstream>

#include "check.h"
#include "random.h"

namespace cellcam::tests {

namespace {

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

std::vector<std::int64_t> numbers(const std::string& list) {
  std::vector<std::int64_t> out;
  std::stringstream stream(list);
  for (std::string item; std::getline(stream, item, ',');) out.push_back(std::stoll(item));
  return out;
}

const std::regex& entry_of(const std::string& name) {
  static std::regex entry;
  std::string escaped;
  for (const char c : name) escaped += c == '.' ? std::string("\\.") : std::string(1, c);
  entry = std::regex("\"" + escaped + R"re("\s*:\s*\{"dtype":"F32","shape":\[([\d,]*)\],"data_offsets":\[(\d+),(\d+)\]\})re");
  return entry;
}

}  // namespace

std::string reference_path(const std::string& name) {
  const char* shared = std::getenv("CELLCAM_SHARED");
  const std::filesystem::path folder = std::filesystem::path(shared ? shared : "../shared") / "goldens";
  if (!std::filesystem::exists(folder)) throw Skipped("no reference cases at " + folder.string());
  return (folder / name).string();
}

std::string read_text(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) throw std::runtime_error("cannot read " + path);
  return {std::istreambuf_iterator<char>(stream), {}};
}

ReferenceTensors::ReferenceTensors(const std::string& path) : file_(read_text(path)) {
  std::uint64_t length = 0;
  std::memcpy(&length, file_.data(), sizeof length);
  const std::string header = file_.substr(8, length);
  const std::regex name(R"re("([^"]+)":\{"dtype")re");
  for (std::sregex_iterator i(header.begin(), header.end(), name), end; i != end; ++i) names_.push_back((*i)[1]);
}

at::Tensor ReferenceTensors::operator()(const std::string& name) const {
  std::uint64_t length = 0;
  std::memcpy(&length, file_.data(), sizeof length);
  const std::string header = file_.substr(8, length);
  std::smatch found;
  if (!std::regex_search(header, found, entry_of(name))) throw std::runtime_error("no reference tensor " + name);
  at::Tensor tensor = at::empty(numbers(found[1]), at::kFloat);
  std::memcpy(tensor.data_ptr(), file_.data() + 8 + length + std::stoull(found[2]), tensor.nbytes());
  return tensor;
}

at::Tensor uniforms(const std::string& key, std::uint64_t seed, at::IntArrayRef shape) {
  at::Tensor values = at::empty(shape, at::kDouble);
  Random random(seed, key);
  double* p = values.data_ptr<double>();
  for (std::int64_t i = 0; i < values.numel(); ++i) p[i] = random.uniform();
  return values;
}

at::Tensor state_tensor(const std::string& key, std::uint64_t seed, const at::Tensor& like) {
  if (like.scalar_type() == at::kLong) return at::zeros_like(like);
  at::Tensor u = uniforms(key, seed, like.sizes());
  if (like.dim() >= 2) {
    u = (2 * u - 1) * std::sqrt(3.0 / (static_cast<double>(like.numel()) / static_cast<double>(like.size(0))));
  } else if (ends_with(key, ".running_mean") || ends_with(key, ".bias")) {
    u = 0.2 * (u - 0.5);
  } else {
    u = 0.5 + u;
  }
  return u.to(at::kFloat);
}

at::Tensor input_images(at::IntArrayRef shape, std::uint64_t seed) {
  const std::int64_t n = shape[0], c = shape[1], h = shape[2], w = shape[3];
  const at::Tensor gain = uniforms("input_gain", seed, {n, c, 8, 8});
  const at::Tensor rows = (at::arange(h) * 8).floor_divide(h), columns = (at::arange(w) * 8).floor_divide(w);
  const at::Tensor value = uniforms("input", seed, shape) * gain.index_select(2, rows).index_select(3, columns);
  const at::Tensor mean = at::tensor({0.485, 0.456, 0.406, 0.485}, at::kDouble).view({1, c, 1, 1});
  const at::Tensor std = at::tensor({0.229, 0.224, 0.225, 0.229}, at::kDouble).view({1, c, 1, 1});
  return ((value - mean) / std).to(at::kFloat);
}

double distance(const at::Tensor& got, const at::Tensor& want) {
  if (got.sizes() != want.sizes()) return INFINITY;
  const at::Tensor a = got.detach().to(at::kDouble), b = want.to(at::kDouble);
  return ((a - b).norm() / b.norm()).item<double>();
}

void check_close(const at::Tensor& got, const at::Tensor& want, double tolerance, const std::string& what) {
  const double d = distance(got, want);
  std::ostringstream text;
  text << what << ": relative distance " << d << " is above " << tolerance;
  check(d <= tolerance, text.str());
}

}  // namespace cellcam::tests
