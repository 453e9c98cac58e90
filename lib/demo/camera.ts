import { blur, type Plane } from './plane';
import type { RandomStream } from './random';

const FULL = 65535;

/** How much of the light from elsewhere in the depth of the cell reaches a pixel. */
const HAZE = 0.1;

/**
 * What the microscope makes of a stain: light from out of focus, the blur of the optics, background, shot and read noise.
 * @returns (size, size) 16-bit grey values
 */
export function photograph(plane: Plane, random: RandomStream): Uint16Array {
  const sharp = blur(plane, 0.6);
  const haze = blur(plane, plane.size / 60);
  const background = random.uniform(0.015, 0.03);
  const pixels = new Uint16Array(plane.data.length);
  for (let i = 0; i < pixels.length; i++) {
    const signal = (1 - HAZE) * (sharp.data[i] as number) + HAZE * (haze.data[i] as number);
    const light = Math.max(0, signal) + background;
    const noisy = light + random.normal() * Math.sqrt(0.0012 * light + 0.00006);
    pixels[i] = Math.round(FULL * Math.min(1, Math.max(0, noisy)));
  }
  return pixels;
}
