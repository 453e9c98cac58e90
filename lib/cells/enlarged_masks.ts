import type { NdArray } from '../options';
import { cellBoxes, type CellBox } from './centers';
import { EnlargedCell, enlargedAxis, type Axis } from './enlarged_cell';
import { resizeLabels } from './mask_formats';

/** A cell in the original image. */
export interface CellShape extends CellBox {
  /** COCO's run lengths at the original size: down the columns from left to right, zeros first. */
  runs: number[];
  /** Pixels of the original image. */
  area: number;
}

function runsWithin(box: CellBox, [height, width]: [number, number], has: (y: number, x: number) => boolean) {
  const runs: number[] = [];
  let [start, isSet, area] = [0, false, 0];
  const turn = (at: number): void => {
    runs.push(at - start);
    if (isSet) area += at - start;
    [start, isSet] = [at, !isSet];
  };
  for (let x = box.x1; x < box.x2; x++) {
    for (let y = box.y1; y < box.y2; y++) if (has(y, x) !== isSet) turn(x * height + y);
    if (isSet && box.y2 < height) turn(x * height + box.y2);
    else if (isSet && !(x + 1 < box.x2 && has(0, x + 1))) turn((x + 1) * height);
  }
  if (start < width * height) runs.push(width * height - start);
  return { runs, area };
}

/**
 * Every cell as it looks in the original image: its 0/1 mask enlarged as OpenCV's INTER_AREA does, pixel for pixel; where the original is
 * smaller, each pixel is that of the nearest one's middle.
 * @param cells cell numbers, 0 is background; shape (H, W)
 * @param originalSize [height, width]
 * @returns in ascending order of cellId
 * @throws CellcamError ERR_INVALID_ARG
 */
export function cellShapes(cells: NdArray<Uint16Array>, originalSize: [height: number, width: number]): CellShape[] {
  const boxes = cellBoxes(cells, originalSize);
  const [rows, columns] = cells.shape as [number, number];
  const [height, width] = originalSize;
  if (height < rows || width < columns) {
    const { data } = resizeLabels(cells, originalSize);
    return boxes.map((box) => ({
      ...box,
      ...runsWithin(box, originalSize, (y, x) => data[y * width + x] === box.cellId),
    }));
  }
  const axes: [Axis, Axis] = [enlargedAxis(rows, height), enlargedAxis(columns, width)];
  return boxes.map((box) => {
    const cell = new EnlargedCell(cells, box.cellId, ...axes);
    return { ...box, ...runsWithin(box, originalSize, (y, x) => cell.has(y, x)) };
  });
}
