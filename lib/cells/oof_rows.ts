import { HPA, type DatasetSpec } from '../data/dataset_spec';
import { invalidArgument, requireInteger, requireString } from '../options';
import type { CellPrediction } from './cam_intersection';

/** float32 carries all decimals of six digits, so that shorter ones need not be tried; tiny numbers carry fewer. */
function shortestDecimal(value: number): number {
  const first = Math.abs(value) < 1.2e-38 ? 1 : 6;
  for (let digits = first; digits < 9; digits++) {
    const rounded = Number(value.toPrecision(digits));
    if (Math.fround(rounded) === value) return rounded;
  }
  return Number(value.toPrecision(9));
}

/** The shortest decimal that reads back as the same float32, written as numpy and pandas write it: 0.0, 0.25, 1e-05. */
function float32Text(value: number, name: string): string {
  if (!Number.isFinite(value)) throw invalidArgument('a finite number', name, value);
  if (value === 0) return Object.is(value, -0) ? '-0.0' : '0.0';
  const decimal = shortestDecimal(value);
  const size = Math.abs(decimal);
  if (size < 1e-4 || size >= 1e16) return decimal.toExponential().replace(/e([+-])(\d)$/, 'e$10$2');
  return Number.isInteger(decimal) ? `${decimal}.0` : String(decimal);
}

function quoted(text: string): string {
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** The header of a table of cell predictions, with its line feed; one column a class, named by its index. */
export function oofHeader(spec: DatasetSpec = HPA): string {
  return `ID,ImageWidth,ImageHeight,cell_id,cell_center,${spec.classes.map((_, c) => c).join(',')}\n`;
}

/**
 * One cell's row, with its line feed.
 * @param id of the image
 * @param size of the original image, in pixels
 * @throws CellcamError ERR_INVALID_ARG
 */
export function oofRow(id: string, size: { height: number; width: number }, prediction: CellPrediction): string {
  const { cellId, center, probabilities } = prediction;
  const width = requireInteger(size?.width, 'size.width', 1);
  const height = requireInteger(size.height, 'size.height', 1);
  const start = `${quoted(requireString(id, 'id'))},${width},${height},${cellId},"(${center[0]}, ${center[1]})"`;
  const values = Array.from(probabilities, (p, c) => float32Text(p, `probabilities[${c}]`));
  return `${start},${values.join(',')}\n`;
}
