import sharp from 'sharp';
import type { DatasetSpec } from '../data/dataset_spec';
import type { NdArray } from '../options';
import { compositeImage } from './composite';
import { letter, textWidth } from './lettering';
import { fromSvg, writePicture } from './picture';

export interface SheetTile {
  /** (H, W, C). */
  image: NdArray<Uint8Array>;
  /** Sets the brightness of its channels, so that tiles of one image compare; default the image itself. */
  like?: NdArray<Uint8Array>;
  title: string;
  lines: string[];
}

const TILE = 256;
const MARGIN = 12;
const TITLE_SIZE = 13;
const TEXT_SIZE = 11;
const LINE = 15;

/** A line cut to the width of a tile. */
function fitting(text: string, size: number): string {
  let shown = text;
  while (textWidth(shown, size) > TILE) shown = `${shown.replace(/…$/, '').slice(0, -1)}…`;
  return shown;
}

function captionHeight(rows: SheetTile[][]): number {
  return MARGIN + LINE * (1 + Math.max(...rows.flat().map(({ lines }) => lines.length)));
}

async function picture({ image, like }: SheetTile, spec: DatasetSpec): Promise<Buffer> {
  const [height, width] = image.shape as [number, number];
  const rgb = compositeImage(image.data, spec, like?.data);
  const raw = { width, height, channels: 3 as const };
  return sharp(rgb, { raw }).resize(TILE, TILE, { fit: 'contain', background: '#fff' }).png().toBuffer();
}

function caption({ title, lines }: SheetTile, x: number, y: number): string {
  const heading = letter({ text: fitting(title, TITLE_SIZE), x, y, size: TITLE_SIZE, weight: 'bold', fill: '#222' });
  const rest = lines.map((text, i) =>
    letter({ text: fitting(text, TEXT_SIZE), x, y: y + LINE * (i + 1), size: TEXT_SIZE, fill: '#444' }),
  );
  return [heading, ...rest].join('');
}

/** Writes rows of images with what they are as one PNG, whole or not at all. @throws CellcamError ERR_WRITE */
export async function writeContactSheet(path: string, rows: SheetTile[][], spec: DatasetSpec): Promise<void> {
  const step = TILE + MARGIN;
  const rowHeight = TILE + MARGIN + captionHeight(rows);
  const width = MARGIN + step * Math.max(...rows.map((row) => row.length));
  const height = MARGIN + rowHeight * rows.length;
  const placed = rows.flatMap((row, j) =>
    row.map((tile, i) => ({ tile, left: MARGIN + step * i, top: MARGIN + rowHeight * j })),
  );
  const captions = placed.map(({ tile, left, top }) => caption(tile, left, top + TILE + LINE)).join('');
  const text = `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}">${captions}</svg>`;
  const tiles = await Promise.all(
    placed.map(async ({ tile, left, top }) => ({ input: await picture(tile, spec), left, top })),
  );
  const sheet = sharp({ create: { width, height, channels: 3, background: '#fff' } });
  await writePicture(
    path,
    sheet.composite([...tiles, { input: await fromSvg(text).png().toBuffer(), left: 0, top: 0 }]),
  );
}
