#pragma once
#include <cstdlib>

namespace cellcam::model {

// Whether a way of computing that is only there for speed is wanted: yes, unless the environment sets its name to 0 (docs/performance.md).
inline bool switched_on(const char* name) {
  const char* asked = std::getenv(name);
  return asked == nullptr || asked[0] != '0';
}

}  // namespace cellcam::model
