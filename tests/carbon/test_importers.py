"""Grid files of others: read as they are exported, refused with the row where they are broken."""

import json
from datetime import UTC, datetime

import pytest

from carbon import CarbonError
from carbon.factors import grid_files as importers

MAPS = (
    "Datetime (UTC),Country,Zone Name,Zone Id,Carbon Intensity gCO₂eq/kWh (direct),Carbon Intensity gCO₂eq/kWh (LCA),"
    "Low Carbon Percentage,Renewable Percentage,Data Source,Data Estimated,Data Estimation Method"
)


def maps(rows, header=MAPS):
    return "\n".join([header, *rows]) + "\n"


def maps_row(hour, lca="300.5", zone="FR", estimated="false", direct="250"):
    return f"2023-01-01 {hour:02d}:00:00,France,France,{zone},{direct},{lca},90,20,ENTSOE,{estimated},"


def write(tmp_path, text, name="file.csv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_electricity_maps(tmp_path):
    text = maps([maps_row(hour, lca=str(100 + hour), estimated="true" if hour == 1 else "false") for hour in range(3)])
    found = importers.read(write(tmp_path, text))
    assert found.trace.gco2e_per_kwh.tolist() == [100.0, 101.0, 102.0]
    assert str(found.trace.kind) == "average, lifecycle"
    assert found.trace.start == datetime(2023, 1, 1, tzinfo=UTC)
    assert "proprietary" in found.trace.licence
    assert any("1 of 3" in warning for warning in found.warnings)


def test_newer_electricity_maps_names_and_direct_only(tmp_path):
    new = "Datetime (UTC),Zone id,Carbon intensity gCO₂eq/kWh (direct),Carbon intensity gCO₂eq/kWh (Life cycle)"
    found = importers.read(write(tmp_path, maps(["2024-01-01 00:00:00,DE,1,2", "2024-01-01 01:00:00,DE,1,3"], new)))
    assert found.trace.gco2e_per_kwh.tolist() == [2.0, 3.0]
    direct = "Datetime (UTC),Zone id,Carbon intensity gCO₂eq/kWh (direct)"
    found = importers.read(write(tmp_path, maps(["2024-01-01 00:00:00,DE,7"], direct)))
    assert found.trace.kind.boundary == "combustion"
    assert any("no life-cycle" in warning for warning in found.warnings)


def test_watttime_is_marginal_and_in_pounds(tmp_path):
    rows = [f"2024-05-01T{minute // 60:02d}:{minute % 60:02d}:00Z,{1000 + minute},v3" for minute in range(0, 120, 5)]
    found = importers.read(write(tmp_path, "point_time,value,version\n" + "\n".join(rows)))
    assert str(found.trace.kind) == "marginal, combustion"
    # mean of 1000, 1005, ... 1055 lb/MWh, and 453.59237 g/lb over 1000 kWh/MWh
    assert found.trace.gco2e_per_kwh.tolist() == pytest.approx([1027.5 * 0.45359237, 1087.5 * 0.45359237], rel=1e-12)
    assert any("no unit" in warning for warning in found.warnings)


def test_watttime_json(tmp_path):
    data = [{"point_time": f"2024-05-01T0{hour}:00:00+00:00", "value": 800 + hour} for hour in range(3)]
    meta = {"units": "lbs_co2_per_mwh", "signal_type": "co2_aoer", "region": "CAISO_NORTH"}
    found = importers.read(write(tmp_path, json.dumps({"data": data, "meta": meta}), "answer.json"))
    assert str(found.trace.kind) == "average, combustion"
    assert found.trace.name == "watttime:CAISO_NORTH"
    assert found.warnings == ()
    bad = write(tmp_path, json.dumps({"data": data, "meta": {**meta, "units": "kg_per_mwh"}}), "bad.json")
    with pytest.raises(CarbonError, match="lbs_co2_per_mwh"):
        importers.read(bad)


EIA = "Balancing Authority,UTC Time at End of Hour,Net Generation (MW) from Coal,Net Generation (MW) from Wind,Demand (MW)"


def test_eia930_by_fuel(tmp_path):
    text = EIA + "\nCISO,01/01/2022 1:00:00 AM,100,300,9\nCISO,01/01/2022 2:00:00 AM,0,50,9\n"
    found = importers.read(write(tmp_path, text))
    # (100 * 820 + 300 * 11) / 400 and 11; the first row ends at 1:00, so it begins at 0:00
    assert found.trace.gco2e_per_kwh.tolist() == pytest.approx([213.25, 11.0])
    assert found.trace.start == datetime(2022, 1, 1, tzinfo=UTC)
    assert str(found.trace.kind) == "average, lifecycle"


def test_eia930_of_one_authority(tmp_path):
    text = EIA + "\nCISO,01/01/2022 1:00:00 AM,100,300,9\nERCO,01/01/2022 1:00:00 AM,100,0,9\n"
    path = write(tmp_path, text)
    assert importers.read(path, zone="erco").trace.gco2e_per_kwh.tolist() == [820.0]
    with pytest.raises(CarbonError, match=r"row 2.*'ERCO' after 'CISO'"):
        importers.read(path)
    with pytest.raises(CarbonError, match="CISO"):
        importers.read(path, zone="CIS0")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([maps_row(0), maps_row(2)], ("row 2", "gap")),
        ([maps_row(0), maps_row(1), maps_row(3)], ("row 3", "gap")),
        ([maps_row(0), maps_row(1), maps_row(1)], ("row 3", "duplicate of row 2")),
        ([maps_row(0), maps_row(0)], ("row 2", "duplicate of row 1")),
        ([maps_row(0), maps_row(1), maps_row(0)], ("row 3", "back")),
        ([maps_row(0), maps_row(1, lca="-3")], ("row 2", "negative", "LCA")),
        ([maps_row(0), maps_row(1, lca="")], ("row 2", "missing")),
        ([maps_row(0), maps_row(1, lca="n/a")], ("row 2", "not a number")),
        ([maps_row(0), maps_row(1, lca="nan")], ("row 2", "missing")),
        ([maps_row(0), maps_row(1, zone="DE")], ("row 2", "one zone")),
        ([maps_row(0), "yesterday" + maps_row(1)[19:]], ("row 2", "not a time")),
        ([maps_row(0), "a,b"], ("row 2", "cells")),
        ([], ("no data rows",)),
    ],
)
def test_broken_electricity_maps_files_name_the_row(tmp_path, rows, words):
    with pytest.raises(CarbonError) as caught:
        importers.read(write(tmp_path, maps(rows)))
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (maps(["2023-01-01 00:00:00,FR,1"], "Datetime (UTC),Zone id,Carbon Intensity kgCO2eq/kWh (LCA)"), "gCO2eq/kWh"),
        (maps(["2023-01-01 00:00:00,FR,1"], "Datetime (local),Zone id,Carbon Intensity gCO2eq/kWh (LCA)"), "UTC"),
        ("point_time,value,units\n2024-05-01T00:00:00Z,1,g_per_kwh\n", "lbs_co2_per_mwh"),
        (
            "point_time,value,signal_type\n2024-05-01T00:00:00Z,1,co2_moer\n2024-05-01T01:00:00Z,1,co2_aoer\n",
            "one signal_type",
        ),
        ("point_time,value\n2024-05-01T00:00:00Z,1\n2024-05-01T00:07:00Z,1\n", "5, 15, 30 or 60"),
        ("point_time,value\n2024-05-01T00:30:00Z,1\n2024-05-01T01:30:00Z,1\n", "full hour"),
        ("point_time,value\n2024-05-01T00:00:00Z,1\n2024-05-01T00:30:00Z,1\n2024-05-01T01:00:00Z,1\n", "incomplete"),
        (EIA + "\nCISO,01/01/2022 1:00:00 AM,0,0,9\n", "no generation"),
        (EIA + "\nCISO,01/01/2022 1:00:00 AM,100,-1,9\n", "negative"),
        (EIA.replace("(MW)", "(GW)") + "\nCISO,01/01/2022 1:00:00 AM,100,1,9\n", "format"),
        ("a,b\n1,2\n", "no known format"),
        ("", "no data rows"),
        ("{not json", "not a WattTime answer"),
        ('{"data": [], "meta": {"x": ' + "9" * 5000 + "}}", "not a WattTime answer"),
        ('{"data": [{"point_time": "2024-05-01T00:00:00Z", "value": 1}], "meta": 3}', "not a WattTime answer"),
    ],
)
def test_wrong_units_kinds_and_formats(tmp_path, text, word):
    with pytest.raises(CarbonError, match=word):
        importers.read(write(tmp_path, text))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(CarbonError, match="cannot be read"):
        importers.read(tmp_path / "none.csv")
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CarbonError, match="UTF-8"):
        importers.read(tmp_path / "bytes.csv")
    with pytest.raises(CarbonError, match="eia930"):
        importers.read(tmp_path / "none.csv", format="eia931")


@pytest.mark.parametrize(("header", "missing"), [("point_time,moer,version", "value"), ("time,value,point_time_local", "point_time")])
def test_a_watttime_file_without_its_columns(header, missing):
    with pytest.raises(CarbonError, match=f"lacks the column {missing!r}, which a WattTime export has"):
        importers._watttime(header.split(","), [["2024-05-01T00:00:00Z", "1", "v3"]], None)
