import { readFileSync } from 'node:fs';
import { parse } from 'csv-parse/sync';
import type { ScoredCell, ScoredImage } from './score';

function rowsOf(path: string): string[][] {
  const rows: string[][] = parse(readFileSync(path, 'utf8'));
  return rows.slice(1);
}

/** The cells of an OOF table: ID, ImageWidth, ImageHeight, cell_id, cell_center and a column a class. */
export function readCells(path: string, classes: number): ScoredCell[] {
  return rowsOf(path).map((row) => ({
    id: row[0]!,
    cellId: Number(row[3]),
    probabilities: row.slice(5, 5 + classes).map(Number),
  }));
}

/** The image-level probabilities that training saved: ID and a column a class. */
export function readImages(path: string): ScoredImage[] {
  return rowsOf(path).map(([id, ...probabilities]) => ({ id: id!, probabilities: probabilities.map(Number) }));
}
