import type { RandomStream } from './random';

/** One stain of a square field while it is drawn: (size, size) row-major, 0 dark, 1 the brightest the camera records. */
export interface Plane {
  size: number;
  data: Float32Array;
}

export function createPlane(size: number): Plane {
  return { size, data: new Float32Array(size * size) };
}

function gaussianKernel(sigma: number): Float64Array {
  const radius = Math.max(1, Math.ceil(3 * sigma));
  const kernel = Float64Array.from({ length: 2 * radius + 1 }, (_, i) => Math.exp(-((i - radius) ** 2) / (2 * sigma ** 2)));
  const sum = kernel.reduce((total, value) => total + value, 0);
  return kernel.map((value) => value / sum);
}

/** A row with its end pixels repeated `margin` times, so that the inner loop of the blur needs no bounds. */
function extendRow({ size, data }: Plane, y: number, margin: number, row: Float64Array): void {
  row.fill(data[y * size] as number, 0, margin);
  row.set(data.subarray(y * size, (y + 1) * size), margin);
  row.fill(data[(y + 1) * size - 1] as number, margin + size);
}

/** One pass along rows; the result is transposed, so that two passes blur both axes and end upright. */
function blurTransposed(plane: Plane, kernel: Float64Array): Plane {
  const { size } = plane;
  const out = createPlane(size);
  const margin = (kernel.length - 1) / 2;
  const row = new Float64Array(size + 2 * margin);
  for (let y = 0; y < size; y++) {
    extendRow(plane, y, margin, row);
    for (let x = 0; x < size; x++) {
      let sum = 0;
      for (let k = 0; k < kernel.length; k++) sum += (kernel[k] as number) * (row[x + k] as number);
      out.data[x * size + y] = sum;
    }
  }
  return out;
}

/** Gaussian blur, sigma in pixels; the border pixel goes on outside. */
export function blur(plane: Plane, sigma: number): Plane {
  const kernel = gaussianKernel(sigma);
  return blurTransposed(blurTransposed(plane, kernel), kernel);
}

/** Smooth random texture of mean 0 and standard deviation 1, with structures of about `sigma` pixels. */
export function texture(size: number, sigma: number, random: RandomStream): Plane {
  const noise = createPlane(size);
  for (let i = 0; i < noise.data.length; i++) noise.data[i] = random.normal();
  const smooth = blur(noise, sigma);
  const power = smooth.data.reduce((sum, value) => sum + value * value, 0) / smooth.data.length;
  const scale = 1 / Math.sqrt(power);
  for (let i = 0; i < smooth.data.length; i++) smooth.data[i] = (smooth.data[i] as number) * scale;
  return smooth;
}

/** Adds a Gaussian spot; sigma in pixels, the position may lie outside. */
export function addSpot({ size, data }: Plane, x: number, y: number, sigma: number, amplitude: number): void {
  const reach = Math.ceil(3 * sigma);
  const [left, right] = [Math.max(0, Math.floor(x) - reach), Math.min(size - 1, Math.floor(x) + reach)];
  const [top, bottom] = [Math.max(0, Math.floor(y) - reach), Math.min(size - 1, Math.floor(y) + reach)];
  for (let row = top; row <= bottom; row++) {
    for (let column = left; column <= right; column++) {
      const d2 = (column - x) ** 2 + (row - y) ** 2;
      const at = row * size + column;
      data[at] = (data[at] as number) + amplitude * Math.exp(-d2 / (2 * sigma * sigma));
    }
  }
}
