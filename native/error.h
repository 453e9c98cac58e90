#pragma once
#include <stdexcept>
#include <string>
#include <utility>

namespace cellcam {

// An error with the stable code that the TypeScript side shows (lib/errors.ts lists the codes).
class Error : public std::runtime_error {
 public:
  Error(std::string code, const std::string& message) : std::runtime_error(message), code_(std::move(code)) {}
  const std::string& code() const { return code_; }

 private:
  std::string code_;
};

}  // namespace cellcam
