#include "bench.h"

#include <iostream>

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  const std::string what = arguments.empty() ? "" : arguments.front();
  try {
    if (what == "train" || what == "infer" || what == "curve") return cellcam::bench::network(arguments);
    if (what == "augmentation") return cellcam::bench::augmentation({arguments.begin() + 1, arguments.end()});
    std::cerr << "Expected train, infer, curve or augmentation but received '" << what << "'\n";
  } catch (const std::exception& e) {
    std::cerr << e.what() << "\n";
  }
  return 1;
}
