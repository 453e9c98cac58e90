import sharp from 'sharp';
import type { NdArray } from '../options';
import { letter } from './lettering';
import { writePicture } from './picture';

/** A word beside a cell, and whether it is right. */
export interface Caption {
  x: number;
  y: number;
  text: string;
  correct: boolean;
}

export interface OverlayOptions {
  /** (H, W, 4) microtubules, protein, nucleus, ER. */
  field: NdArray<Uint8Array>;
  cells: NdArray<Uint16Array>;
  /** (H, W), from 0 to 1: the activation map of the class shown. */
  cam: Float32Array;
  captions: Caption[];
  title: string;
  /** Pixels of the picture a pixel of the field. */
  scale?: number;
}

const HEAD = 34;
const GAP = 12;

function isEdge({ data, shape }: NdArray<Uint16Array>, y: number, x: number): boolean {
  const [h, w] = shape as [number, number];
  const id = data[y * w + x];
  return (x + 1 < w && data[y * w + x + 1] !== id) || (y + 1 < h && data[(y + 1) * w + x] !== id);
}

type Shade = (pixel: number) => [number, number, number];

function panel(o: OverlayOptions, shade: Shade): Buffer {
  const [h, w] = o.cells.shape as [number, number];
  const rgb = Buffer.alloc(h * w * 3);
  for (let i = 0; i < h * w; i++) {
    const edge = isEdge(o.cells, Math.floor(i / w), i % w);
    rgb.set(edge ? [255, 255, 255] : shade(i), i * 3);
  }
  return rgb;
}

/** Microtubules red, protein green, nuclei blue, ER as a little yellow. */
function composite(field: Uint8Array): Shade {
  return (i) => {
    const [r, g, b, y] = field.subarray(i * 4, i * 4 + 4) as unknown as [number, number, number, number];
    return [Math.min(255, r * 0.7 + y * 0.35), Math.min(255, g * 1.3 + y * 0.2), Math.min(255, b * 1.1)];
  };
}

/** The protein in grey under the activation map in red. */
function heat(field: Uint8Array, cam: Float32Array): Shade {
  return (i) => {
    const grey = field[i * 4 + 1]! * 0.8;
    const a = Math.max(0, Math.min(1, cam[i]!)) * 0.7;
    return [grey * (1 - a) + 255 * a, grey * (1 - a) + 90 * a, grey * (1 - a)];
  };
}

function lettering(o: OverlayOptions, scale: number, width: number, height: number): string {
  const [, w] = o.cells.shape as [number, number];
  const title = letter({ text: o.title, x: 10, y: 23, size: 16, fill: '#ffffff' });
  const words = o.captions.flatMap(({ x, y, text, correct }) =>
    [0, w * scale + GAP].map((left) =>
      letter({
        text,
        x: left + x * scale,
        y: HEAD + y * scale,
        size: 12,
        fill: correct ? '#8df59a' : '#ffb3a7',
        anchor: 'middle',
      }),
    ),
  );
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}">${title}${words.join('')}</svg>`;
}

async function enlarged(rgb: Buffer, w: number, h: number, scale: number): Promise<Buffer> {
  return sharp(rgb, { raw: { width: w, height: h, channels: 3 } })
    .resize(w * scale, h * scale, { kernel: 'nearest' })
    .png()
    .toBuffer();
}

/** Writes a field with its cells outlined: left as a colour composite, right under the activation map of one class. */
export async function writeOverlay(path: string, o: OverlayOptions): Promise<void> {
  const scale = o.scale ?? 3;
  const [h, w] = o.cells.shape as [number, number];
  const width = 2 * w * scale + GAP;
  const height = HEAD + h * scale;
  const panels = [panel(o, composite(o.field.data)), panel(o, heat(o.field.data, o.cam))];
  const images = await Promise.all(panels.map((rgb) => enlarged(rgb, w, h, scale)));
  const layers = images.map((input, i) => ({ input, left: i * (w * scale + GAP), top: HEAD }));
  const picture = sharp({ create: { width, height, channels: 3, background: '#15181d' } }).composite([
    ...layers,
    { input: Buffer.from(lettering(o, scale, width, height)), left: 0, top: 0 },
  ]);
  await writePicture(path, picture);
}
