import { HPA, type DatasetSpec } from '../data/dataset_spec';
import { invalidArgument, requireInteger, requireString } from '../options';
import type { CellPrediction } from './cam_intersection';

/** `value` to so many digits, exact halves to even (toExponential alone rounds them up), and the next decimal above. */
function decimalsNear(value: number, digits: number): [nearest: number, above: number] {
  const [mantissa, exponent] = value.toExponential(digits).split('e') as [string, string];
  const isHalf = /[02468]\.?5$/.test(mantissa) && Number(`${mantissa}e${exponent}`) === value;
  const nearest = isHalf ? `${mantissa.slice(0, -1)}e${exponent}` : value.toExponential(digits - 1);
  const [kept, power] = nearest.split('e') as [string, string];
  return [Number(nearest), Number(`${Number(kept.replace('.', '')) + 1}e${Number(power) - digits + 1}`)];
}

/**
 * Normal float32 numbers tell all decimals of six digits apart, so fewer need not be tried. The decimal above matters at
 * powers of two: less room lies below them, so that the nearest one can miss.
 */
function shortestDecimal(value: number): number {
  for (let digits = value < 1.2e-38 ? 1 : 6; digits < 9; digits++) {
    const found = decimalsNear(value, digits).find((decimal) => Math.fround(decimal) === value);
    if (found !== undefined) return found;
  }
  return Number(value.toPrecision(9));
}

/** The shortest decimal that reads back as the same float32, written as numpy and pandas write it: 0.0, 0.25, 1e-05. */
export function float32Text(value: number, name: string): string {
  if (!(value >= 0 && value <= 1)) throw invalidArgument('a number from 0 to 1', name, value);
  if (value === 0) return '0.0';
  if (value === 1) return '1.0';
  const decimal = shortestDecimal(value);
  return value < 1e-4 ? decimal.toExponential().replace(/e-(\d)$/, 'e-0$1') : String(decimal);
}

export function quoted(text: string): string {
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
