#pragma once
#include <functional>
#include <iostream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace cellcam::tests {

struct Test {
  std::string name;
  std::function<void()> body;
};

inline std::vector<Test>& all() {
  static std::vector<Test> tests;
  return tests;
}

struct Register {
  Register(std::string name, std::function<void()> body) { all().push_back({std::move(name), std::move(body)}); }
};

// Thrown by a test that cannot run here; what() says why.
struct Skipped : std::runtime_error {
  using std::runtime_error::runtime_error;
};

inline void check(bool holds, const std::string& what) {
  if (!holds) throw std::runtime_error(what);
}

// For reference values in double; relative to the larger of 1 and |expected|.
inline void check_near(double value, double expected, double tolerance, const std::string& what) {
  const double scale = expected < 0 ? 1 - expected : 1 + expected;
  const double distance = value < expected ? expected - value : value - expected;
  if (distance <= tolerance * scale) return;
  std::ostringstream text;
  text << what << ": expected " << expected << " but got " << value;
  throw std::runtime_error(text.str());
}

}  // namespace cellcam::tests
