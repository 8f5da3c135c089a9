package gemmini

import chisel3._
import freechips.rocketchip.diplomacy.LazyModule
import freechips.rocketchip.tile.BuildRoCC
import org.chipsalliance.cde.config.{Config, Parameters}

// One core of a design that dse found. Everything that is not named here is Gemmini's default configuration.
object DseDesign0007Configs {
  val config = GemminiConfigs.defaultConfig.copy(
    inputType = SInt(8.W),
    accType = SInt(32.W),
    tileRows = 1,
    tileColumns = 1,
    meshRows = 32,
    meshColumns = 32,
    dataflow = Dataflow.BOTH,
    sp_banks = 4,
    acc_banks = 2,
    sp_capacity = CapacityInKilobytes(64),
    acc_capacity = CapacityInKilobytes(16),
    dma_buswidth = 512
  )
}

class DseDesign0007Config extends Config((site, here, up) => {
  case BuildRoCC => up(BuildRoCC) ++ Seq((p: Parameters) => {
    implicit val q = p
    LazyModule(new Gemmini(DseDesign0007Configs.config))
  })
})
