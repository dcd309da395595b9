//! The best device present: the first of the known drivers' devices that is not the host's own
//! processor and whose code the bundle has.

use super::plugin::PluginDevice;
use super::table::Table;
use hub_abi::device::HOST;

/// Drivers that are asked, those to be preferred first.
const KNOWN: [&str; 3] = ["cuda", "ascend", "opencl"];
/// Devices of a driver that are looked at.
const MOST: u32 = 16;

/// The best device's name (`opencl:0`) and the device; else why there is none, driver by driver.
/// `has` says whether the bundle has code of a tier.
pub fn best(has: &dyn Fn(&str) -> bool) -> Result<(String, PluginDevice), String> {
    let mut why = vec![];
    for driver in KNOWN {
        match of_driver(driver, has) {
            Ok((index, device)) => return Ok((format!("{driver}:{index}"), device)),
            Err(e) => why.push(format!("{driver}: {e}")),
        }
    }
    Err(why.join("; "))
}

fn of_driver(driver: &str, has: &dyn Fn(&str) -> bool) -> Result<(u32, PluginDevice), String> {
    let table = Table::find(driver).map_err(|_| "no driver")?;
    let table = table.map_err(|e| e.to_string())?;
    if !table.tiers().iter().any(|t| has(t)) {
        return Err("the bundle has no code for it".into());
    }
    let n = table.count().map_err(|e| e.to_string())?;
    let mut why = "it finds no device".to_string();
    for index in 0..n.min(MOST) {
        match PluginDevice::of(table, index).and_then(|d| Ok((d.kind()?, d))) {
            Ok((HOST, _)) => why = "it finds the host's own processor only".into(),
            Ok((_, device)) => return Ok((index, device)),
            Err(e) => why = e.to_string(),
        }
    }
    Err(why)
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_driver_says_why_not() {
        let why = super::best(&|_| false).err().expect("no code for any");
        for driver in super::KNOWN {
            assert!(why.contains(&format!("{driver}: ")), "{why}");
        }
    }
}
