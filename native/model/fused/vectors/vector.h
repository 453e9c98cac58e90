// What vectors of either width have in common. A file of loops includes avx2.h and avx512.h, each within a namespace whose functions are compiled for
// those instructions, and after each of them the loops.

inline Vector operator*(float f, Vector x) { return Vector::all(f) * x; }
inline Vector add(float f, Vector x, Vector y) { return add(Vector::all(f), x, y); }  // f x + y

constexpr int kVectors = kPanel / kLanes;        // of a row of a panel
constexpr int kMostRows = kLanes == 16 ? 24 : 6;  // of them whose sums stay in registers: the units want eight sums at least to be busy
