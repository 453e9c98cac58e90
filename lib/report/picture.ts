import sharp from 'sharp';
import { writeDurably, writeError } from '../data/durable';

/** Resolution at which one unit of an SVG is one pixel. */
const UNIT_DENSITY = 72;

/**
 * Writes an SVG as a PNG, whole or not at all.
 * @param scale pixels per unit of the drawing
 * @throws CellcamError ERR_WRITE
 */
export async function writePicture(path: string, svg: string, scale = 1): Promise<void> {
  let png: Buffer;
  try {
    png = await sharp(Buffer.from(svg), { density: UNIT_DENSITY * scale })
      .flatten({ background: '#fff' })
      .png()
      .toBuffer();
  } catch (error) {
    throw writeError(path, error);
  }
  await writeDurably(path, png);
}
