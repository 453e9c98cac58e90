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

namespace cellcam::tests {

namespace {

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
