//! Plots of how a figure grows with another one.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

/// In pixels.
const SIZE: (u32, u32) = (640, 400);
const MARGIN: u32 = 12;
const LABELS: u32 = 56;
const DOT: u32 = 4;
/// Room above the highest value.
const HEADROOM: f64 = 1.15;

/// A figure over another one.
#[derive(Debug, Clone)]
pub struct Series {
    /// What the plot shows.
    pub title: String,
    /// What is on the horizontal axis, which is logarithmic.
    pub over: String,
    /// What is on the vertical axis.
    pub figure: String,
    /// The points, by their horizontal place.
    pub points: Vec<(f64, f64)>,
}

/// Draws a series as SVG.
pub fn draw(series: &Series, path: &Path) -> Result<()> {
    let failed = |error: &dyn std::error::Error| anyhow!("drawing {}: {error}", path.display());
    let first = series.points.first().ok_or_else(|| anyhow!("{} has no points", series.title))?.0;
    let last = series.points.last().map_or(first, |point| point.0);
    let highest = series.points.iter().map(|point| point.1).fold(0.0, f64::max);
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE).map_err(|error| failed(&error))?;
    let mut chart = ChartBuilder::on(&root)
        .caption(&series.title, ("sans-serif", 18))
        .margin(MARGIN)
        .x_label_area_size(LABELS)
        .y_label_area_size(LABELS)
        .build_cartesian_2d((first..last * 1.01).log_scale(), 0.0..highest * HEADROOM)
        .map_err(|error| failed(&error))?;
    let plain = |value: &f64| format!("{value}");
    chart
        .configure_mesh()
        .x_desc(&series.over)
        .y_desc(&series.figure)
        .x_label_formatter(&plain)
        .draw()
        .map_err(|error| failed(&error))?;
    let points = || series.points.iter().copied();
    chart.draw_series(LineSeries::new(points(), &BLUE)).map_err(|error| failed(&error))?;
    let dots = points().map(|point| Circle::new(point, DOT, BLUE.filled()));
    chart.draw_series(dots).map_err(|error| failed(&error))?;
    root.present().map_err(|error| failed(&error))
}
