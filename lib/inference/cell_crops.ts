import type { FieldImage } from '../cells/field_image';
import { resizeLabels } from '../cells/mask_formats';
import { cellBoxes } from '../cells/centers';
import { resizeField } from '../data/resize';
import type { NdArray } from '../options';

/**
 * Each cell of a field alone, as step 2 of the prediction sees it: cut out by its box, all other pixels 0, in the middle of a square,
 * resized to (size, size, channels).
 * @param cells numbered cells; brought to the field's size where they have another
 * @returns in ascending order of the cells' numbers
 */
export async function* cellCrops(
  field: FieldImage,
  cells: NdArray<Uint16Array>,
  size: number,
): AsyncGenerator<{ cellId: number; pixels: Uint8Array }> {
  const own = resizeLabels(cells, [field.size, field.size]);
  const channels = field.pixels.length / (field.size * field.size);
  for (const { cellId, x1, y1, x2, y2 } of cellBoxes(own, [field.size, field.size])) {
    const side = Math.max(x2 - x1, y2 - y1);
    const [left, top] = [Math.floor((side - (x2 - x1)) / 2), Math.floor((side - (y2 - y1)) / 2)];
    const planes = Array.from({ length: channels }, () => new Uint8Array(side * side));
    for (let y = y1; y < y2; y++) {
      for (let x = x1; x < x2; x++) {
        const from = y * field.size + x;
        if (own.data[from] !== cellId) continue;
        const to = (y - y1 + top) * side + x - x1 + left;
        for (let c = 0; c < channels; c++) planes[c]![to] = field.pixels[from * channels + c]!;
      }
    }
    const square = { planes: planes.map((data) => ({ data, shape: [side, side] })), height: side, width: side };
    yield { cellId, pixels: (await resizeField(square, size, 'uint8')) as Uint8Array };
  }
}
