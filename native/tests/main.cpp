#include <algorithm>

#include "check.h"

// Usage: cellcam_tests [WORDS]...: those with one of WORDS in their names, all without.
int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  int passed = 0, failed = 0, skipped = 0;
  for (const auto& test : cellcam::tests::all()) {
    const auto named = [&](const std::string& w) { return test.name.find(w) != std::string::npos; };
    if (!words.empty() && std::none_of(words.begin(), words.end(), named)) continue;
    try {
      test.body();
      ++passed;
    } catch (const cellcam::tests::Skipped& e) {
      ++skipped;
      std::cout << "skipped " << test.name << ": " << e.what() << "\n";
    } catch (const std::exception& e) {
      ++failed;
      std::cout << "FAILED " << test.name << ": " << e.what() << "\n";
    }
  }
  std::cout << "Native tests: " << passed << " passed, " << failed << " failed, " << skipped << " skipped\n";
  return failed == 0 ? 0 : 1;
}
