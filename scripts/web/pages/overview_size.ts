/** The width that something has on the page, so that pictures are drawn in its own pixels and text keeps its size. */
import { useEffect, useState } from 'preact/hooks';

/** @returns a ref for the element, and its width in CSS pixels; 0 before it is known */
export function useWidth(): [(element: HTMLElement | null) => void, number] {
  const [element, setElement] = useState<HTMLElement | null>(null);
  const [width, setWidth] = useState(0);
  useEffect(() => {
    if (element === null) return undefined;
    const watcher = new ResizeObserver(() => setWidth(element.clientWidth));
    watcher.observe(element);
    setWidth(element.clientWidth);
    return () => watcher.disconnect();
  }, [element]);
  return [setElement, width];
}
