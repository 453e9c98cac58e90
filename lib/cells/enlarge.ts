import { requireInteger, requireNdArray } from '../options';

/** Output i of an axis lies between `near[i]` and `near[i] + 1`. */
export interface Axis {
  near: Int32Array;
  share: Float64Array;
}

/** An axis enlarged from n to size. */
function samplePositions(n: number, size: number): Axis {
  const near = new Int32Array(size);
  const share = new Float64Array(size);
  for (let i = 0; i < size && n > 1; i++) {
    const at = ((i + 0.5) * n) / size - 0.5;
    // Mirrored about the centre of the edge pixel, not clamped.
    const position = at < 0 ? -at : at > n - 1 ? 2 * (n - 1) - at : at;
    near[i] = Math.min(Math.floor(position), n - 2);
    share[i] = position - near[i]!;
  }
  return { near, share };
}

/** Enlarges maps of one size to one size, as scikit-image's `resize` does: linear, mirrored, in double, then float32. */
export class Enlarger {
  readonly down: Axis;
  readonly across: Axis;
  /** Every source row at full width. */
  readonly wide: Float64Array;

  constructor(
    private readonly h: number,
    private readonly w: number,
    private readonly height: number,
    private readonly width: number,
  ) {
    this.down = samplePositions(h, height);
    this.across = samplePositions(w, width);
    this.wide = new Float64Array(h * width);
  }

  /** No clipping to the input's range: float32 rounding of these mixtures cannot leave it. */
  run(cam: Float32Array, out: Float32Array): void {
    this.widen(cam);
    const { wide, width } = this;
    const next = this.h > 1 ? width : 0;
    for (let y = 0, o = 0; y < this.height; y++) {
      const share = this.down.share[y]!;
      const from = this.down.near[y]! * width;
      for (let i = from; i < from + width; i++) out[o++] = wide[i]! * (1 - share) + wide[i + next]! * share;
    }
  }

  /** Takes a map: fills `wide`. */
  widen(cam: Float32Array): void {
    const { w, width, wide } = this;
    const { near, share } = this.across;
    const next = w > 1 ? 1 : 0;
    for (let y = 0, o = 0; y < this.h; y++) {
      for (let x = 0; x < width;) {
        const place = near[x]!;
        const [left, right] = [cam[y * w + place]!, cam[y * w + place + next]!];
        for (; x < width && near[x] === place; x++) wide[o++] = left * (1 - share[x]!) + right * share[x]!;
      }
    }
  }
}

/**
 * Enlarges one map as scikit-image's `resize` does (order 1, reflect, anti-aliasing without effect when enlarging).
 * @param cam h * w values
 * @param from [h, w]
 * @param to [H, W], each at least as large
 * @param out takes H * W values
 * @returns out
 * @throws CellcamError ERR_INVALID_ARG
 */
export function resizeCam(
  cam: Float32Array,
  from: [number, number],
  to: [number, number],
  out = new Float32Array(to[0] * to[1]),
): Float32Array {
  from.forEach((n, i) => requireInteger(n, `from[${i}]`, 1));
  to.forEach((n, i) => requireInteger(n, `to[${i}]`, from[i]!));
  requireNdArray({ data: cam, shape: from }, 'cam', ['Float32Array'], ['h', 'w']);
  requireNdArray({ data: out, shape: to }, 'out', ['Float32Array'], ['H', 'W']);
  new Enlarger(...from, ...to).run(cam, out);
  return out;
}
