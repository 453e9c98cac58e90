import sharp from 'sharp';
import { cellOutlines, outlinePath } from '../cells/outlines';
import type { Instances } from '../cells/label_cells';
import type { DatasetSpec } from '../data/dataset_spec';
import { compositeImage } from './composite';
import { letter } from './lettering';
import { fromSvg, writePicture } from './picture';

const SHORTEST = 1024;

/**
 * A field in colour with the outlines of its cells, and of their nuclei in blue, and the cells' numbers.
 * @param pixels (H, W, C) uint8
 * @param path the PNG
 */
export async function writeOutlines(
  path: string,
  pixels: Uint8Array,
  [height, width]: [number, number],
  found: Instances,
  spec: DatasetSpec,
): Promise<void> {
  const scale = Math.max(1, SHORTEST / Math.min(height, width));
  const [tall, wide] = [Math.round(height * scale), Math.round(width * scale)];
  const field = await sharp(compositeImage(pixels, spec), { raw: { width, height, channels: 3 } })
    .resize(wide, tall, { fit: 'fill', kernel: 'cubic' })
    .png()
    .toBuffer();
  const draw = (cells: Instances['cells'], ink: string, numbers: boolean): string =>
    cellOutlines(cells)
      .map((outline) => {
        const [x, y] = [outline.centre[0] * scale, outline.centre[1] * scale];
        const number = letter({ text: String(outline.cellId), x, y, size: 16, anchor: 'middle', fill: '#fff' });
        const line = outlinePath(outline, scale);
        return `<path d="${line}" fill="none" stroke="#000" stroke-opacity=".5" stroke-width="3"/><path d="${line}" fill="none" stroke="${ink}" stroke-width="1.5"/>${numbers ? number : ''}`;
      })
      .join('');
  const lines = draw(found.nuclei, '#7cc4ff', false) + draw(found.cells, '#ffffff', true);
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="${wide}" height="${tall}">${lines}</svg>`;
  await writePicture(path, sharp(field).composite([{ input: await fromSvg(svg).png().toBuffer() }]));
}
