import sharp from 'sharp';
import { writeDurably, writeError } from '../data/durable';

/** Resolution at which one unit of an SVG is one pixel. */
const UNIT_DENSITY = 72;

/** An SVG as an image; `scale` is pixels per unit of the drawing. */
export function fromSvg(svg: string, scale = 1): sharp.Sharp {
  return sharp(Buffer.from(svg), { density: UNIT_DENSITY * scale });
}

/** Writes an image as a PNG on white, whole or not at all. @throws CellcamError ERR_WRITE */
export async function writePicture(path: string, image: sharp.Sharp): Promise<void> {
  let png: Buffer;
  try {
    png = await image.flatten({ background: '#fff' }).png().toBuffer();
  } catch (error) {
    throw writeError(path, error);
  }
  await writeDurably(path, png);
}
