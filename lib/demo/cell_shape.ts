import type { RandomStream } from './random';

/** A star-shaped region: its centre and, at evenly spaced angles from 0 to 2π, how far it reaches, in pixels. */
export interface Outline {
  x: number;
  y: number;
  /** Mean reach. */
  radius: number;
  reach: Float32Array;
}

export interface CellShape {
  body: Outline;
  nucleus: Outline;
  nucleoli: { x: number; y: number; radius: number }[];
  /** How strongly this cell takes up the stains, about 1. */
  brightness: number;
}

const ANGLES = 256;

/** A circle bent by a few harmonics; `roughness` is the amplitude of the lowest, which makes it longish. */
function irregularOutline(x: number, y: number, radius: number, roughness: number, random: RandomStream): Outline {
  const reach = new Float32Array(ANGLES).fill(1);
  for (const frequency of [2, 3, 4, 6]) {
    const amplitude = (2 * roughness * random.uniform(0.4, 1)) / frequency;
    const phase = random.uniform(0, 2 * Math.PI);
    for (let i = 0; i < ANGLES; i++) {
      const wave = amplitude * Math.cos((2 * Math.PI * frequency * i) / ANGLES + phase);
      reach[i] = (reach[i] as number) + wave;
    }
  }
  return { x, y, radius, reach: reach.map((share) => radius * Math.max(0.6, share)) };
}

/** Distance of a pixel from the centre as a share of the outline's reach that way: below 1 inside. */
export function relativeDistance(outline: Outline, x: number, y: number): number {
  const dx = x - outline.x;
  const dy = y - outline.y;
  const turn = Math.atan2(dy, dx) / (2 * Math.PI) + 1;
  const reach = outline.reach[Math.floor(turn * ANGLES) % ANGLES] as number;
  return Math.sqrt(dx * dx + dy * dy) / reach;
}

/** A random point inside, at no more than `share` of the outline's reach, evenly over the area. */
export function pointInside(outline: Outline, share: number, random: RandomStream): { x: number; y: number } {
  const turn = random.uniform();
  const reach = (outline.reach[Math.floor(turn * ANGLES)] as number) * share * Math.sqrt(random.uniform());
  return { x: outline.x + reach * Math.cos(2 * Math.PI * turn), y: outline.y + reach * Math.sin(2 * Math.PI * turn) };
}

/** A cell at (x, y) with its nucleus (.50 to .60 of the cell's radius) and nucleoli. Lengths in pixels. */
export function randomCell(x: number, y: number, radius: number, random: RandomStream): CellShape {
  const body = irregularOutline(x, y, radius, 0.14, random);
  const offset = 0.12 * radius;
  const [nx, ny] = [x + random.uniform(-offset, offset), y + random.uniform(-offset, offset)];
  const nucleus = irregularOutline(nx, ny, radius * random.uniform(0.5, 0.6), 0.08, random);
  const nucleoli = Array.from({ length: random.integer(2, 3) }, () => ({
    ...pointInside(nucleus, 0.6, random),
    radius: nucleus.radius * random.uniform(0.2, 0.27),
  }));
  const brightness = Math.min(1.5, Math.max(0.6, Math.exp(0.16 * random.normal())));
  return { body, nucleus, nucleoli, brightness };
}
