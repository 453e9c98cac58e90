#pragma once
#include <string>
#include <vector>

namespace cellcam::bench {

// Each takes what follows its name on the command line and returns the exit status.
int augmentation(const std::vector<std::string>& arguments);
int network(const std::vector<std::string>& arguments);

}  // namespace cellcam::bench
