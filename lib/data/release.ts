import { native } from '../native';

const SMALLEST = 65_536; // smaller arrays may share their memory with others of Node's pool

/**
 * Gives back the memory of large arrays that nobody else holds, at once: V8 knows how much lies outside its heap only roughly, lets
 * tens of MB gather, and then searches its whole heap for them. The arrays are empty afterwards.
 */
export function release(arrays: ArrayBufferView[]): void {
  const buffers = arrays.map(({ buffer }) => buffer as ArrayBuffer).filter(({ byteLength }) => byteLength >= SMALLEST);
  native((addon) => addon.release(buffers));
}
