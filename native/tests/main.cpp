#include "check.h"

int main() {
  int failed = 0, skipped = 0;
  for (const auto& test : cellcam::tests::all()) {
    try {
      test.body();
    } catch (const cellcam::tests::Skipped& e) {
      ++skipped;
      std::cout << "skipped " << test.name << ": " << e.what() << "\n";
    } catch (const std::exception& e) {
      ++failed;
      std::cout << "FAILED " << test.name << ": " << e.what() << "\n";
    }
  }
  const auto total = static_cast<int>(cellcam::tests::all().size());
  std::cout << "Native tests: " << total - failed - skipped << " passed, " << failed << " failed, " << skipped << " skipped\n";
  return failed == 0 ? 0 : 1;
}
