//! Decoding of image files. The decoders are safe on any bytes; what they may allocate is bounded
//! before they do.

use crate::error::{Limits, PrimError};
use crate::tensor::Tensor;
use hub_abi::prim::Pixel;
use image::ImageReader;
use std::io::Cursor;

/// Greatest rows or columns.
const MOST_SIDE: u32 = 1 << 16;

/// The image in `bytes` as u8 [height, width, channels]: BMP, JPEG, PNG, PNM, TIFF or WebP, told
/// apart by their first bytes. Colours become the pixel's; 16 bits a channel lose their low 8. What
/// cannot be decoded gives no rows and no columns, as ONNX has it.
pub(crate) fn decode(bytes: &Tensor, pixel: Pixel, limits: &Limits) -> Result<Tensor, PrimError> {
    let empty = || Tensor::new(&[0, 0, pixel.channels()], Vec::<u8>::new());
    if let Some((w, h, rgb)) = crate::jpeg::decode(bytes.bytes(), limits.tensor_bytes.min(1 << 28))
    {
        return Tensor::new(&[h, w, pixel.channels()], of_rgb(rgb, pixel));
    }
    let reader = ImageReader::new(Cursor::new(bytes.bytes()));
    let Ok(mut reader) = reader.with_guessed_format() else { return empty() };
    let mut most = image::Limits::default();
    most.max_image_width = Some(MOST_SIDE);
    most.max_image_height = Some(MOST_SIDE);
    most.max_alloc = Some(limits.tensor_bytes.min(1 << 30));
    reader.limits(most);
    let Ok(image) = reader.decode() else { return empty() };
    let dims = [image.height() as usize, image.width() as usize, pixel.channels()];
    limits.count(&dims, 1)?;
    Tensor::new(&dims, of_rgb(image.into_rgb8().into_raw(), pixel))
}

/// ITU-R 601's luma in 16 bits of fraction, to nearest.
fn grey(p: &[u8]) -> u8 {
    let [r, g, b] = [p[0], p[1], p[2]].map(u32::from);
    ((r * 19595 + g * 38470 + b * 7471 + (1 << 15)) >> 16) as u8
}

fn of_rgb(mut rgb: Vec<u8>, pixel: Pixel) -> Vec<u8> {
    match pixel {
        Pixel::Grey => return rgb.chunks_exact(3).map(grey).collect(),
        Pixel::Rgb => {}
        Pixel::Bgr => rgb.chunks_exact_mut(3).for_each(|p| p.swap(0, 2)),
    }
    rgb
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(bytes: &[u8], pixel: Pixel) -> Result<Tensor, PrimError> {
        decode(&Tensor::new(&[bytes.len()], bytes.to_vec())?, pixel, &Limits::default())
    }

    #[test]
    fn pixels_come_in_the_order_asked_for() {
        let file = b"P6 2 1 255\n\x01\x02\x03\xff\x00\x00";
        let rgb = decoded(file, Pixel::Rgb).unwrap();
        assert_eq!((rgb.dims(), rgb.bytes()), (&[1, 2, 3][..], &[1, 2, 3, 255, 0, 0][..]));
        assert_eq!(decoded(file, Pixel::Bgr).unwrap().bytes(), [3, 2, 1, 0, 0, 255]);
        assert_eq!(decoded(file, Pixel::Grey).unwrap().dims(), [1, 2, 1]);
    }

    #[test]
    fn what_is_no_image_is_empty() {
        let files: [&[u8]; 4] =
            [b"", b"no image", b"P6 99999 99999 255\n", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"];
        for file in files {
            assert_eq!(decoded(file, Pixel::Rgb).unwrap().dims(), [0, 0, 3]);
        }
    }
}
