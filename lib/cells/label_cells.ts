import { CellcamError } from '../errors';
import { nativeAsync, type NativeInstances } from '../native';
import { requireNdArray, requireNumber, requireOneOf, type NdArray } from '../options';

/** Cells and nuclei of a field, (h, w): 0 is background, and a nucleus has the number of its cell. */
export type Instances = NativeInstances;

export interface LabelCellsOptions {
  /** Area of a full-size pixel over that of a pixel here: (512 / image width)² for maps of 512 pixels, 1 at full size. */
  scale: number;
  /** `original` keeps HPA-Cell-Segmentation's 8-bit labels on the way, which lose cells from the 256th on. Default: `none`. */
  compat?: 'none' | 'original';
}

/**
 * Cells and their nuclei from the probability maps of HPA-Cell-Segmentation's networks, as its 0.1.7 makes them.
 * @param nuclei,cells (h, w, 3): background (not looked at), border and interior, 0…255; leave them alone until it settles
 * @returns numbers from 1 to the number of cells, by the first pixel in row-major order
 * @throws CellcamError ERR_INVALID_ARG; ERR_IMAGE for more than 65535 cells
 */
export async function labelCells(
  nuclei: NdArray<Uint8Array>,
  cells: NdArray<Uint8Array>,
  o: LabelCellsOptions,
): Promise<Instances> {
  requireNdArray(nuclei, 'nuclei', ['Uint8Array'], ['h', 'w', 3]);
  requireNdArray(cells, 'cells', ['Uint8Array'], ['h', 'w', 3]);
  const [height, width] = nuclei.shape;
  if (height !== cells.shape[0] || width !== cells.shape[1] || height === 0 || width === 0) {
    throw new CellcamError(
      'ERR_INVALID_ARG',
      `Expected nuclei and cells of one size that is not empty but received shapes (${nuclei.shape.join(', ')}) and (${cells.shape.join(', ')})`,
    );
  }
  const scale = requireNumber(o?.scale, 'scale', Number.MIN_VALUE);
  const wrap = requireOneOf(o.compat ?? 'none', 'compat', ['none', 'original'] as const) === 'original';
  return nativeAsync((a) => a.labelCells(nuclei, cells, scale, wrap));
}
